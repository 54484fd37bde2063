;; Sound, but for version 0.2.0 of the contract.
;; expect: refused: it is made for another version of the contract (millstream:plugin/transform@0.2.0)
;; version: 0.2.0



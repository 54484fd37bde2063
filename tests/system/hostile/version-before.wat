;; Sound, but for version 0.0.9 of the contract.
;; expect: refused: it is made for another version of the contract (millstream:plugin/transform@0.0.9)
;; version: 0.0.9



;; Refuses its configuration with words that are no text.
;; expect: refused: invalid utf-8

(data (i32.const 1664) "\01\00\00\00\00\08\00\00\01\00\00\00")
(data (i32.const 2048) "\ff")

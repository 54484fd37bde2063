;; The honest plugin, which consists of more core instances than its pipeline file allows.
;; expect: refused: instance count too high
;; limits: instances = 1



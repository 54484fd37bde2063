;; Opens maps by what might be their number or place.
;; expect: fails: no state "0"
;; more: plugins.{case}-owner.path = {probe}
;; more: plugins.{case}-owner.limits = { time = "100ms", memory = "64MiB" }
;; more: steps.{case}-owner = { inputs = ["in"], plugin = "{case}-owner", config = { state = "{case}-map" }, state = ["{case}-map"], on-error = "skip" }
;; more: sinks.{case}-owner = { inputs = ["{case}-owner"], topic = "{case}-owner" }

(data (i32.const 2048) "0")
(func $evil (param $batch i32) (result i32)
  (call $state-open (global.get $text) (i32.const 1) (global.get $told))
  (if (i32.eqz (i32.load (global.get $told))) (then (return (call $pass (local.get $batch)))))
  (call $refuse (i32.load offset=4 (global.get $told)) (i32.load offset=8 (global.get $told))))

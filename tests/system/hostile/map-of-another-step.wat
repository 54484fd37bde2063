;; Opens, as its own state, the map that another step keeps its state in.
;; expect: fails: the pipeline file gives step "map-of-another-step" no state "map-of-another-step-map"
;; more: plugins.{case}-owner.path = {probe}
;; more: plugins.{case}-owner.limits = { time = "100ms", memory = "64MiB" }
;; more: steps.{case}-owner = { inputs = ["in"], plugin = "{case}-owner", config = { state = "{case}-map" }, state = ["{case}-map"], on-error = "skip" }
;; more: sinks.{case}-owner = { inputs = ["{case}-owner"], topic = "{case}-owner" }

(data (i32.const 2048) "map-of-another-step-map")
(func $evil (param $batch i32) (result i32)
  (call $state-open (global.get $text) (i32.const 23) (global.get $told))
  (if (i32.eqz (i32.load (global.get $told))) (then (return (call $pass (local.get $batch)))))
  (call $refuse (i32.load offset=4 (global.get $told)) (i32.load offset=8 (global.get $told))))

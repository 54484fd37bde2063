;; Needs, as state, a map that it isn't given.
;; expect: refused: the plugin needs state "theirs", which the pipeline file does not give it
;; more: plugins.{case}-owner.path = {probe}
;; more: plugins.{case}-owner.limits = { time = "100ms", memory = "64MiB" }
;; more: steps.{case}-owner = { inputs = ["in"], plugin = "{case}-owner", config = { state = "{case}-map" }, state = ["{case}-map"], on-error = "skip" }
;; more: sinks.{case}-owner = { inputs = ["{case}-owner"], topic = "{case}-owner" }

(data (i32.const 2048) "theirs")
(data (i32.const 1684) "\f8\07\00\00\01\00\00\00")
(data (i32.const 2040) "\00\08\00\00\06\00\00\00")

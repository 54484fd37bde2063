;; What a case is made of where it doesn't say otherwise: an honest plugin that passes everything on, and calls $evil for a batch that has
;; the long record. A case that defines a function or memory of the same name replaces the one that stands here: each stands in a
;; paragraph of its own. Functions have the names and types that the contract's canonical ABI gives them.

(import "millstream:plugin/log@0.1.0" "log" (func $log (param $level i32) (param $text i32) (param $length i32)))
(import "millstream:plugin/lookups@0.1.0" "open" (func $lookup-open (param $name i32) (param $length i32) (param $answer i32)))
(import "millstream:plugin/lookups@0.1.0" "[method]lookup.get" (func $lookup-get (param $handle i32)
  (param $bytes i32) (param i32) (param $ends i32) (param i32) (param $nulls i32) (param i32) (param $answer i32)))
(import "millstream:plugin/lookups@0.1.0" "[resource-drop]lookup" (func $lookup-drop (param $handle i32)))
(import "millstream:plugin/state@0.1.0" "open" (func $state-open (param $name i32) (param $length i32) (param $answer i32)))
(import "millstream:plugin/state@0.1.0" "[method]store.get" (func $state-get (param $handle i32)
  (param $bytes i32) (param i32) (param $ends i32) (param i32) (param $nulls i32) (param i32) (param $answer i32)))
(import "millstream:plugin/state@0.1.0" "[method]store.put" (func $state-put (param $handle i32)
  (param $bytes i32) (param i32) (param $ends i32) (param i32) (param $nulls i32) (param i32)
  (param $value-bytes i32) (param i32) (param $value-ends i32) (param i32) (param $value-nulls i32) (param i32)))
(import "millstream:plugin/state@0.1.0" "[resource-drop]store" (func $state-drop (param $handle i32)))

(export "memory" (memory $memory))
(export "cabi_realloc" (func $realloc))
(export "millstream:plugin/transform@0.1.0#describe" (func $describe))
(export "millstream:plugin/transform@0.1.0#configure" (func $configure))
(export "millstream:plugin/transform@0.1.0#process" (func $process))
(export "cabi_post_millstream:plugin/transform@0.1.0#describe" (func $post-describe))
(export "cabi_post_millstream:plugin/transform@0.1.0#configure" (func $post-configure))
(export "cabi_post_millstream:plugin/transform@0.1.0#process" (func $post-process))

;; Where things stand: a result<outcome, string>, its only output, what that points to, and what host functions answer.
(global $answer i32 (i32.const 1024))
(global $output i32 (i32.const 1088))
(global $origins i32 (i32.const 1536))
(global $ends i32 (i32.const 1552))
(global $bytes i32 (i32.const 1568))
(global $needs i32 (i32.const 1664))
(global $description i32 (i32.const 1728))
(global $told i32 (i32.const 1792))
(global $text i32 (i32.const 2048))
(global $heap (mut i32) (i32.const 65536))

(memory $memory 4)

(func $describe (result i32)
  (global.get $description))

(func $configure (param $config i32) (param $length i32) (result i32)
  (global.get $needs))

(func $process (param $batch i32) (result i32)
  ;; The evil record is the only one of more than 4,000 bytes.
  (if (result i32) (i32.gt_u (i32.load offset=84 (local.get $batch)) (i32.const 4000))
    (then (call $evil (local.get $batch)))
    (else (call $pass (local.get $batch)))))

(func $evil (param $batch i32) (result i32)
  (call $pass (local.get $batch)))

;; How many records a batch has.
(func $records (param $batch i32) (result i32)
  (i32.load offset=44 (local.get $batch)))

;; An answer with one output, of so many origins that stand there; it inherits everything.
(func $keep (param $from i32) (param $records i32) (result i32)
  (memory.fill (global.get $answer) (i32.const 0) (i32.const 256))
  (i32.store offset=4 (global.get $answer) (global.get $output))
  (i32.store offset=8 (global.get $answer) (i32.const 1))
  (i32.store offset=8 (global.get $output) (local.get $from))
  (i32.store offset=12 (global.get $output) (local.get $records))
  (global.get $answer))

;; Everything passes unchanged.
(func $pass (param $batch i32) (result i32)
  (local $origins i32)
  (local $at i32)
  (local.set $origins (call $allocate (i32.const 4) (i32.mul (call $records (local.get $batch)) (i32.const 4))))
  (loop $next
    (i32.store (i32.add (local.get $origins) (i32.mul (local.get $at) (i32.const 4))) (local.get $at))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (call $records (local.get $batch)))))
  (call $keep (local.get $origins) (call $records (local.get $batch))))

;; The first record of the batch comes out twice, with the values "x" and "y": something to be damaged. Output: origins at 8,
;; keys at 16, values at 44, timestamps at 72, headers at 84; an option has its tag first, a column is bytes, ends and nulls.
(func $two (result i32)
  (drop (call $keep (global.get $origins) (i32.const 2)))
  (i64.store (global.get $origins) (i64.const 0))
  (i32.store (global.get $bytes) (i32.const 0x7978))
  (i32.store offset=0 (global.get $ends) (i32.const 1))
  (i32.store offset=4 (global.get $ends) (i32.const 2))
  (call $set-column (i32.add (global.get $output) (i32.const 44)))
  (global.get $answer))

;; Makes the option<column> there those two values.
(func $set-column (param $at i32)
  (i32.store (local.get $at) (i32.const 1))
  (i32.store offset=4 (local.get $at) (global.get $bytes))
  (i32.store offset=8 (local.get $at) (i32.const 2))
  (i32.store offset=12 (local.get $at) (global.get $ends))
  (i32.store offset=16 (local.get $at) (i32.const 2)))

;; An answer of failures only, which stand there.
(func $fail (param $from i32) (param $failures i32) (result i32)
  (memory.fill (global.get $answer) (i32.const 0) (i32.const 64))
  (i32.store offset=12 (global.get $answer) (local.get $from))
  (i32.store offset=16 (global.get $answer) (local.get $failures))
  (global.get $answer))

;; The whole batch is refused, with these words.
(func $refuse (param $text i32) (param $length i32) (result i32)
  (i32.store (global.get $answer) (i32.const 1))
  (i32.store offset=4 (global.get $answer) (local.get $text))
  (i32.store offset=8 (global.get $answer) (local.get $length))
  (global.get $answer))

;; Never gives anything back: $post-process takes it all at once.
(func $allocate (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get $align))))
  (global.set $heap (i32.add (local.get $at) (local.get $size)))
  (block $fits
    (loop $more
      (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size $memory) (i32.const 65536))))
      (br_if $more (i32.ne (memory.grow $memory (i32.const 16)) (i32.const -1)))
      (unreachable)))
  (local.get $at))

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (call $allocate (local.get $align) (local.get $size)))

(func $post-describe (param $description i32))

(func $post-configure (param $needs i32))

(func $post-process (param $answer i32)
  (global.set $heap (i32.const 65536)))

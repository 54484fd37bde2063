//go:build wasip1

package plugin

import (
	"errors"
	"runtime"
	"unsafe"
)

// The component model's canonical ABI, for the contract of wit/millstream.wit alone: where each field lies in memory. It is written by hand
// rather than generated, so that a batch becomes Go's slices without a copy.
//
// Invariant: what the host writes here, and what is returned to it, stays where it is until the call's cabi_post.

// arena is where the host puts what it passes: one piece of memory for call after call, with others where that was too small.
type arena struct {
	main  []uint64
	used  int
	more  [][]uint64
	extra int
}

const (
	word      = 8
	arenaMin  = 8 << 10
	keptBytes = 8 << 20
)

var (
	memory arena
	// What the host still reads.
	pinned []any
)

func (a *arena) alloc(bytes int) unsafe.Pointer {
	words := (bytes + word - 1) / word
	if a.main == nil {
		a.main = make([]uint64, arenaMin)
	}
	if a.used+words > len(a.main) {
		piece := make([]uint64, max(words, 1))
		a.more = append(a.more, piece)
		a.extra += words
		return unsafe.Pointer(unsafe.SliceData(piece))
	}
	at := unsafe.Pointer(&a.main[a.used])
	a.used += words
	return at
}

// reset makes room for as much as the last call took, unless that was out of the ordinary.
func (a *arena) reset() {
	if wanted := a.used + a.extra; a.extra > 0 && wanted*word <= keptBytes {
		a.main = make([]uint64, wanted+wanted/4)
	}
	a.used, a.extra, a.more = 0, 0, nil
}

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldBytes, align, bytes uint32) unsafe.Pointer {
	if bytes == 0 {
		return unsafe.Pointer(uintptr(align))
	}
	fresh := memory.alloc(int(bytes))
	if oldBytes > 0 {
		copy(unsafe.Slice((*byte)(fresh), bytes), unsafe.Slice((*byte)(old), min(oldBytes, bytes)))
	}
	return fresh
}

// list is where a list or string lies, as the ABI has it.
type list struct{ at, count uint32 }

func pointer(at uint32) unsafe.Pointer { return unsafe.Pointer(uintptr(at)) }

func lifted[T any](l list) []T {
	if l.count == 0 {
		return nil
	}
	return unsafe.Slice((*T)(pointer(l.at)), l.count)
}

func text(l list) string { return string(lifted[byte](l)) }

func lowered[T any](of []T) list {
	if len(of) == 0 {
		return list{word, 0}
	}
	return list{uint32(uintptr(unsafe.Pointer(unsafe.SliceData(of)))), uint32(len(of))}
}

func pin(what any) { pinned = append(pinned, what) }

func loweredText(of string) list {
	bytes := []byte(of)
	pin(bytes)
	return lowered(bytes)
}

func loweredTexts(of []string) list {
	all := make([]list, len(of))
	for at, text := range of {
		all[at] = loweredText(text)
	}
	pin(all)
	return lowered(all)
}

type abiColumn struct{ bytes, ends, nulls list }

func (c abiColumn) lift() column {
	return column{lifted[byte](c.bytes), lifted[uint32](c.ends), lifted[uint32](c.nulls)}
}

func lowerColumn(of *column) abiColumn {
	return abiColumn{lowered(of.bytes), lowered(of.ends), lowered(of.nulls)}
}

type abiHeaders struct {
	owners        list
	names, values abiColumn
}

type abiBatch struct {
	inputs, inputOf, topic list
	partition              uint32
	_                      uint32
	now                    int64
	offsets, timestamps    list
	keys, values           abiColumn
	headers                abiHeaders
}

// option and result begin with which case it is; what follows is aligned to four bytes.
type abiOutput struct {
	port, origins list
	hasKeys       uint32
	keys          abiColumn
	hasValues     uint32
	values        abiColumn
	hasTimestamps uint32
	timestamps    list
	hasHeaders    uint32
	headers       abiHeaders
}

type abiFailure struct {
	origin uint32
	reason list
}

type abiOutcome struct {
	isError           uint32
	outputs, failures list
}

type abiNeeds struct {
	isError                uint32
	ports, lookups, states list
	headers                uint32
}

type abiDescription struct {
	name, version list
	hasSchema     uint32
	schema        list
}

func address[T any](of *T) uint32 {
	pin(of)
	return uint32(uintptr(unsafe.Pointer(of)))
}

// done ends a call: nothing of it is read any more.
func done() {
	clear(pinned)
	pinned = pinned[:0]
	memory.reset()
}

//go:wasmexport millstream:plugin/transform@0.1.0#describe
func exportDescribe() uint32 {
	described := abiDescription{}
	if registered != nil {
		about := registered.about
		described.name, described.version = loweredText(about.Name), loweredText(about.Version)
		if about.ConfigSchema != "" {
			described.hasSchema, described.schema = 1, loweredText(about.ConfigSchema)
		}
	}
	return address(&described)
}

//go:wasmexport cabi_post_millstream:plugin/transform@0.1.0#describe
func postDescribe(uint32) { done() }

//go:wasmexport millstream:plugin/transform@0.1.0#configure
func exportConfigure(at, bytes uint32) uint32 {
	needed, err := current.configure(text(list{at, bytes}))
	answer := abiNeeds{}
	if err != nil {
		answer.isError, answer.ports = 1, loweredText(reason(err))
		return address(&answer)
	}
	answer.ports, answer.lookups = loweredTexts(needed.ports), loweredTexts(needed.lookups)
	answer.states = loweredTexts(needed.state)
	if needed.headers {
		answer.headers = 1
	}
	return address(&answer)
}

//go:wasmexport cabi_post_millstream:plugin/transform@0.1.0#configure
func postConfigure(uint32) { done() }

//go:wasmexport millstream:plugin/transform@0.1.0#process
func exportProcess(at uint32) uint32 {
	given := (*abiBatch)(pointer(at))
	of := batch{
		inputOf:    lifted[uint32](given.inputOf),
		topic:      text(given.topic),
		partition:  given.partition,
		now:        given.now,
		offsets:    lifted[int64](given.offsets),
		timestamps: lifted[int64](given.timestamps),
		keys:       given.keys.lift(),
		values:     given.values.lift(),
		headers: headers{
			owners: lifted[uint32](given.headers.owners),
			names:  given.headers.names.lift(),
			values: given.headers.values.lift(),
		},
	}
	for _, input := range lifted[list](given.inputs) {
		of.inputs = append(of.inputs, text(input))
	}
	answer := abiOutcome{}
	came, err := current.process(&of)
	if err != nil {
		answer.isError, answer.outputs = 1, loweredText(reason(err))
		return address(&answer)
	}
	outputs := make([]abiOutput, 0, len(came.ports))
	for _, port := range came.ports {
		if len(port.origins) > 0 {
			outputs = append(outputs, port.lower(&of))
		}
	}
	pin(outputs)
	failures := make([]abiFailure, len(came.failures))
	for at, failure := range came.failures {
		failures[at] = abiFailure{failure.origin, loweredText(failure.reason)}
	}
	pin(failures)
	answer.outputs, answer.failures = lowered(outputs), lowered(failures)
	return address(&answer)
}

//go:wasmexport cabi_post_millstream:plugin/transform@0.1.0#process
func postProcess(uint32) { done() }

func (p *port) lower(of *batch) abiOutput {
	output := abiOutput{port: loweredText(p.name), origins: lowered(p.origins)}
	if keys := p.keys.whole(p.origins, &of.keys); keys != nil {
		pin(keys)
		output.hasKeys, output.keys = 1, lowerColumn(keys)
	}
	if values := p.values.whole(p.origins, &of.values); values != nil {
		pin(values)
		output.hasValues, output.values = 1, lowerColumn(values)
	}
	if timestamps := p.wholeTimestamps(of); timestamps != nil {
		pin(timestamps)
		output.hasTimestamps, output.timestamps = 1, lowered(timestamps)
	}
	if headers := p.wholeHeaders(of); headers != nil {
		pin(headers)
		output.hasHeaders = 1
		output.headers = abiHeaders{lowered(headers.owners), lowerColumn(&headers.names), lowerColumn(&headers.values)}
	}
	return output
}

//go:wasmimport millstream:plugin/lookups@0.1.0 open
func importOpenLookup(name unsafe.Pointer, bytes uint32, answer unsafe.Pointer)

//go:wasmimport millstream:plugin/lookups@0.1.0 [method]lookup.get
func importLookup(handle uint32, bytes unsafe.Pointer, bytesLen uint32, ends unsafe.Pointer, endsLen uint32, nulls unsafe.Pointer, nullsLen uint32, answer unsafe.Pointer)

//go:wasmimport millstream:plugin/state@0.1.0 open
func importOpenState(name unsafe.Pointer, bytes uint32, answer unsafe.Pointer)

//go:wasmimport millstream:plugin/state@0.1.0 [method]store.get
func importGet(handle uint32, bytes unsafe.Pointer, bytesLen uint32, ends unsafe.Pointer, endsLen uint32, nulls unsafe.Pointer, nullsLen uint32, answer unsafe.Pointer)

//go:wasmimport millstream:plugin/state@0.1.0 [method]store.put
func importPut(handle uint32, keyBytes unsafe.Pointer, keyBytesLen uint32, keyEnds unsafe.Pointer, keyEndsLen uint32, keyNulls unsafe.Pointer, keyNullsLen uint32, valueBytes unsafe.Pointer, valueBytesLen uint32, valueEnds unsafe.Pointer, valueEndsLen uint32, valueNulls unsafe.Pointer, valueNullsLen uint32)

//go:wasmimport millstream:plugin/log@0.1.0 log
func importLog(level uint32, message unsafe.Pointer, bytes uint32)

type abiHandle struct{ isError, at, count uint32 }

func opened(open func(unsafe.Pointer, uint32, unsafe.Pointer), name string) (uint32, error) {
	bytes, answer := []byte(name), new(abiHandle)
	open(at(bytes), uint32(len(bytes)), unsafe.Pointer(answer))
	runtime.KeepAlive(bytes)
	if answer.isError&0xff != 0 {
		return 0, errors.New(text(list{answer.at, answer.count}))
	}
	return answer.at, nil
}

func at[T any](of []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(of)) }

func size[T any](of []T) uint32 { return uint32(len(of)) }

func hostOpenLookup(name string) (uint32, error) { return opened(importOpenLookup, name) }

func hostOpenState(name string) (uint32, error) { return opened(importOpenState, name) }

func hostLookup(handle uint32, keys *column) column {
	answer := new(abiColumn)
	importLookup(handle, at(keys.bytes), size(keys.bytes), at(keys.ends), size(keys.ends), at(keys.nulls), size(keys.nulls), unsafe.Pointer(answer))
	runtime.KeepAlive(keys)
	return answer.lift()
}

func hostGet(handle uint32, keys *column) column {
	answer := new(abiColumn)
	importGet(handle, at(keys.bytes), size(keys.bytes), at(keys.ends), size(keys.ends), at(keys.nulls), size(keys.nulls), unsafe.Pointer(answer))
	runtime.KeepAlive(keys)
	return answer.lift()
}

func hostPut(handle uint32, keys, values *column) {
	importPut(handle, at(keys.bytes), size(keys.bytes), at(keys.ends), size(keys.ends), at(keys.nulls), size(keys.nulls),
		at(values.bytes), size(values.bytes), at(values.ends), size(values.ends), at(values.nulls), size(values.nulls))
	runtime.KeepAlive(keys)
	runtime.KeepAlive(values)
}

func hostLog(level Level, message string) {
	bytes := []byte(message)
	importLog(uint32(level), at(bytes), size(bytes))
	runtime.KeepAlive(bytes)
}

//go:build !wasip1

package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Harness runs the plugin of a program in an ordinary test, without WebAssembly and without a host. It stands in for the host: it fills in
// what output records inherit, and holds the plugin to the contract, where a breach panics.
type Harness struct {
	// Needs is what the plugin asked for under its configuration.
	Needs   Needs
	granted map[string]map[string][]byte
	state   map[string]map[string][]byte
	handles []map[string][]byte
	calls   calls
}

// Needs is what a plugin asks for under its configuration.
type Needs struct {
	Ports, Lookups, State []string
	Headers               bool
}

type calls struct {
	fetched []int
	put     []int
	lines   []Line
}

// Input is a record for a plugin to process. A nil key or value is null.
type Input struct {
	Key, Value []byte
	// Timestamp in milliseconds; -1 for none.
	Timestamp int64
	Headers   []Header
	// Input is the step's input that the record comes by; "input" where it is empty.
	Input string
}

// Output is a record that came out, with all that it inherits.
type Output struct {
	Port       string
	Origin     int
	Key, Value []byte
	Timestamp  int64
	Headers    []Header
}

// Failure is a record that failed.
type Failure struct {
	Origin int
	Reason string
}

// Line is a line of the operator's log.
type Line struct {
	Level Level
	Text  string
}

// Processed is what a batch came to.
type Processed struct {
	// Outputs are port by port, and of one port in the order of their origins.
	Outputs  []Output
	Failures []Failure
	// Fetches says how many keys each call into the host asked for, Puts how many each wrote.
	Fetches, Puts []int
	Log           []Line
}

// Table is what a lookup or state holds.
type Table map[string]string

// NewHarness configures the plugin that the program registers. The configuration is written as JSON; nil is none. The tables are those that
// the pipeline file would grant; all state that the plugin needs is there, and empty.
func NewHarness(config any, granted map[string]Table) (*Harness, error) {
	text := []byte("{}")
	if config != nil {
		written, err := json.Marshal(config)
		if err != nil {
			return nil, err
		}
		text = written
	}
	h := &Harness{granted: map[string]map[string][]byte{}, state: map[string]map[string][]byte{}}
	for name, table := range granted {
		h.granted[name] = held(table)
	}
	running = h
	needed, err := current.configure(string(text))
	if err != nil {
		return nil, err
	}
	for _, name := range needed.lookups {
		if h.granted[name] == nil {
			return nil, fmt.Errorf("the plugin needs the lookup %q, which the test doesn't grant", name)
		}
	}
	for _, name := range needed.state {
		h.state[name] = map[string][]byte{}
	}
	h.Needs = Needs{needed.ports, needed.lookups, needed.state, needed.headers}
	return h, nil
}

func held(table Table) map[string][]byte {
	all := map[string][]byte{}
	for key, value := range table {
		all[key] = []byte(value)
	}
	return all
}

// SetState makes this what the state of that name holds.
func (h *Harness) SetState(name string, table Table) {
	if h.state[name] == nil {
		panic(fmt.Sprintf("the plugin has no state %q", name))
	}
	clear(h.state[name])
	for key, value := range table {
		h.state[name][key] = []byte(value)
	}
}

// State returns what the state of that name holds.
func (h *Harness) State(name string) Table {
	all := Table{}
	for key, value := range h.state[name] {
		all[key] = string(value)
	}
	return all
}

// Process runs the plugin on a batch of records. An error is about the batch as a whole; what it put into state is undone then, as the host
// would.
func (h *Harness) Process(records ...Input) (Processed, error) {
	of := batchOf(records, h.Needs.Headers)
	running, h.calls = h, calls{}
	saved := map[string]Table{}
	for name := range h.state {
		saved[name] = h.State(name)
	}
	came, err := current.process(of)
	if err != nil {
		for name, table := range saved {
			h.SetState(name, table)
		}
		return Processed{Log: h.calls.lines}, err
	}
	processed := Processed{Fetches: h.calls.fetched, Puts: h.calls.put, Log: h.calls.lines}
	for _, port := range came.ports {
		if len(port.origins) > 0 {
			processed.Outputs = append(processed.Outputs, h.resolve(port, of, records)...)
		}
	}
	for _, failure := range came.failures {
		processed.Failures = append(processed.Failures, Failure{int(failure.origin), failure.reason})
	}
	return processed, nil
}

func batchOf(records []Input, hasHeaders bool) *batch {
	of := &batch{topic: "topic", now: 1_000}
	for index, record := range records {
		of.keys.push(record.Key)
		of.values.push(record.Value)
		of.offsets = append(of.offsets, int64(index))
		of.timestamps = append(of.timestamps, record.Timestamp)
		for _, header := range record.Headers {
			if hasHeaders {
				of.headers.push(index, header)
			}
		}
		name := record.Input
		if name == "" {
			name = "input"
		}
		of.inputOf = append(of.inputOf, uint32(of.input(name)))
	}
	return of
}

func (b *batch) input(name string) int {
	for at, known := range b.inputs {
		if known == name {
			return at
		}
	}
	b.inputs = append(b.inputs, name)
	return len(b.inputs) - 1
}

func (h *Harness) resolve(port *port, of *batch, records []Input) []Output {
	isKnown := port.name == ""
	for _, name := range h.Needs.Ports {
		isKnown = isKnown || name == port.name
	}
	if !isKnown {
		panic(fmt.Sprintf("port %q is none of the plugin's needs", port.name))
	}
	keys, values := port.keys.whole(port.origins, &of.keys), port.values.whole(port.origins, &of.values)
	timestamps, headers := port.wholeTimestamps(of), port.wholeHeaders(of)
	if headers != nil && !h.Needs.Headers {
		panic("headers are set, and the plugin's needs don't ask for them")
	}
	all := make([]Output, len(port.origins))
	for row, origin := range port.origins {
		record := records[origin]
		all[row] = Output{port.name, int(origin), record.Key, record.Value, record.Timestamp, record.Headers}
		if keys != nil {
			all[row].Key = bytes.Clone(keys.get(row))
		}
		if values != nil {
			all[row].Value = bytes.Clone(values.get(row))
		}
		if timestamps != nil {
			all[row].Timestamp = timestamps[row]
		}
		if headers != nil {
			all[row].Headers = nil
			first, end := headers.of(row)
			for at := first; at < end; at++ {
				header := Header{string(headers.names.get(at)), bytes.Clone(headers.values.get(at))}
				all[row].Headers = append(all[row].Headers, header)
			}
		}
	}
	return all
}

// running is whose tables and state the plugin is given.
var running *Harness

func (h *Harness) open(table map[string][]byte, kind, name string) (uint32, error) {
	if table == nil {
		return 0, fmt.Errorf("the pipeline file gives the step no %s %q", kind, name)
	}
	h.handles = append(h.handles, table)
	return uint32(len(h.handles) - 1), nil
}

func hostOpenLookup(name string) (uint32, error) {
	return running.open(running.granted[name], "lookup", name)
}

func hostOpenState(name string) (uint32, error) {
	return running.open(running.state[name], "state", name)
}

func hostLookup(handle uint32, keys *column) column { return hostGet(handle, keys) }

func hostGet(handle uint32, keys *column) column {
	running.calls.fetched = append(running.calls.fetched, keys.len())
	var values column
	for at := range keys.len() {
		values.push(running.handles[handle][string(keys.get(at))])
	}
	return values
}

func hostPut(handle uint32, keys, values *column) {
	running.calls.put = append(running.calls.put, keys.len())
	for at := range keys.len() {
		key, value := string(keys.get(at)), values.get(at)
		if value == nil {
			delete(running.handles[handle], key)
		} else {
			running.handles[handle][key] = bytes.Clone(value)
		}
	}
}

func hostLog(level Level, message string) {
	running.calls.lines = append(running.calls.lines, Line{level, message})
}

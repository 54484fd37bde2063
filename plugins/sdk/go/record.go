package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Record is one record of the step's input. What it returns is valid until the function that was given it returns: whoever keeps bytes
// for longer copies them.
type Record struct {
	batch *batch
	index int
}

// Header is a header of a record. A nil value is null.
type Header struct {
	Name  string
	Value []byte
}

// Key returns the key, nil where it is null. An empty key is not nil.
func (r Record) Key() []byte { return r.batch.keys.get(r.index) }

// Value returns the value, nil where it is null. An empty value is not nil.
func (r Record) Value() []byte { return r.batch.values.get(r.index) }

// Topic returns the topic of the source record.
func (r Record) Topic() string { return r.batch.topic }

// Partition returns the partition of the source record.
func (r Record) Partition() uint32 { return r.batch.partition }

// Offset returns the offset of the source record.
func (r Record) Offset() int64 { return r.batch.offsets[r.index] }

// Timestamp returns milliseconds since 1970-01-01 UTC, -1 where the record has none.
func (r Record) Timestamp() int64 { return r.batch.timestamps[r.index] }

// Now returns the time of day in milliseconds since 1970-01-01 UTC: the same for all records of a batch, and when it is tried again.
func (r Record) Now() int64 { return r.batch.now }

// Input returns which of the step's inputs the record came by, as the pipeline file names it.
func (r Record) Input() string {
	if len(r.batch.inputs) == 1 {
		return r.batch.inputs[0]
	}
	return r.batch.inputs[r.batch.inputOf[r.index]]
}

// Headers returns the headers in their order; none unless the plugin's needs ask for them.
func (r Record) Headers() []Header {
	first, end := r.batch.headers.of(r.index)
	if first == end {
		return nil
	}
	found := make([]Header, 0, end-first)
	for at := first; at < end; at++ {
		name := string(r.batch.headers.names.get(at))
		found = append(found, Header{name, r.batch.headers.values.get(at)})
	}
	return found
}

// Header returns the value of the last header of that name, and whether there is one.
func (r Record) Header(name string) ([]byte, bool) {
	first, end := r.batch.headers.of(r.index)
	for at := end - 1; at >= first; at-- {
		if string(r.batch.headers.names.get(at)) == name {
			return r.batch.headers.values.get(at), true
		}
	}
	return nil, false
}

var errNull = errors.New("the value is null")

// JSON reads the value as JSON into what target points to, as [encoding/json.Unmarshal] does.
func (r Record) JSON(target any) error {
	value := r.Value()
	if value == nil {
		return errNull
	}
	return unmarshal(value, target)
}

func unmarshal(value []byte, target any) error {
	if err := json.Unmarshal(value, target); err != nil {
		return fmt.Errorf("not the JSON that is expected: %w", err)
	}
	return nil
}

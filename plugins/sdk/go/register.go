package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Transform says what becomes of each record. The records of a batch come one after the other, in their order, and never two at a time.
//
// An instance may be thrown away between any two batches: what has to last goes into state ([OpenState]).
type Transform interface {
	// Process emits what becomes of a record. An error fails the record, and what was emitted and put for it is undone. It may be called
	// again with the same record, where some record asks for a key that isn't known yet: see [Lookup.Get].
	Process(record Record, out *Out) error
}

// Func is a function as a [Transform].
type Func func(record Record, out *Out) error

// Process calls the function.
func (f Func) Process(record Record, out *Out) error { return f(record, out) }

// Filter lets those records through, unchanged, for which the function returns true.
func Filter(keep func(Record) (bool, error)) Transform {
	return Func(func(record Record, out *Out) error {
		is, err := keep(record)
		if err == nil && is {
			out.Emit()
		}
		return err
	})
}

// JSON replaces each value, read as JSON, by what the function makes of it. Nil drops the record.
func JSON[In, Result any](change func(In) (*Result, error)) Transform {
	return Func(func(record Record, out *Out) error {
		var value In
		if err := record.JSON(&value); err != nil {
			return err
		}
		changed, err := change(value)
		if err == nil && changed != nil {
			out.Emit().SetJSON(changed)
		}
		return err
	})
}

// About says what a plugin is, and what it uses beside the tables and the state that it opens.
type About struct {
	Name, Version string
	// ConfigSchema is the JSON Schema of the configuration; empty where there is none.
	ConfigSchema string
	// Ports are the output ports beside the default one: [a-z][a-z0-9_-]*, and not "failed".
	Ports []string
	// Headers says that records are to carry their headers. Who sets headers needs it too.
	Headers bool
}

// NoConfig is the configuration of a plugin that takes none.
type NoConfig struct{}

type registration struct {
	about     About
	configure func(config string) (Transform, error)
}

var registered *registration

// Register makes this program a plugin. It is called once, in an init function; main stays empty.
//
// The function makes the transform of a configuration, which is the step's config table, read as by [encoding/json]; a key that C has no
// field for is an error. It is called once for each instance, before any record, and opens what tables and state the transform uses. An
// error is shown to whoever starts the pipeline.
func Register[C any](about About, create func(config C) (Transform, error)) {
	if registered != nil {
		panic("plugin: Register is called once")
	}
	configure := func(text string) (Transform, error) {
		var config C
		decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&config); err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		if _, err := decoder.Token(); err != io.EOF {
			return nil, errors.New("config: more than one JSON value")
		}
		return create(config)
	}
	registered = &registration{about, configure}
}

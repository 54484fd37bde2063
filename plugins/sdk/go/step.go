package plugin

import (
	"errors"
	"fmt"
	"strings"
)

// mode says how keys get their values.
type mode int

const (
	// They don't: nothing is going on, or the plugin is being configured, when tables and state are opened.
	idle mode = iota
	configuring
	// A record that asks for a key which isn't known waits, until those that all records want are fetched at once.
	collecting
	// Each is asked of the host at once, and kept for the rest of the batch.
	atOnce
)

// So often a batch may wait for keys that it asked for only once it knew others; then they are fetched one by one.
const roundsMax = 4

// step is what the plugin of this instance has to do with tables and state, and what a call knows of them.
//
// Invariant: what a call fetched, and what it put and didn't write, is forgotten when it ends.
type step struct {
	about     About
	transform Transform
	tables    []*table
	stores    []*store
	mode      mode
	out       Out
	failures  []failure
	// hasWaited says that the record being processed asked for a key that isn't known, whatever it made of the panic.
	hasWaited bool
}

var current step

// waits is what a record panics with that asks for a key which isn't known yet.
type waits struct{}

func (s *step) wait() {
	s.hasWaited = true
	panic(waits{})
}

var errNotRegistered = errors.New("the program calls plugin.Register in no init function")

// needs is what the contract calls so.
type needs struct {
	ports, lookups, state []string
	headers               bool
}

func (s *step) configure(config string) (needed needs, err error) {
	if registered == nil {
		return needs{}, errNotRegistered
	}
	*s = step{about: registered.about, mode: configuring}
	s.out.about = &s.about
	defer func() {
		s.mode = idle
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	s.transform, err = registered.configure(config)
	if err != nil {
		// Telling it may panic too.
		return needs{}, errors.New(reason(err))
	}
	if s.transform == nil {
		return needs{}, errors.New("the function given to plugin.Register returned no transform")
	}
	needed = needs{ports: s.about.Ports, headers: s.about.Headers}
	for _, table := range s.tables {
		needed.lookups = append(needed.lookups, table.name)
	}
	for _, store := range s.stores {
		needed.state = append(needed.state, store.name)
	}
	return needed, nil
}

// process runs a batch. An error concerns it as a whole.
func (s *step) process(of *batch) (outcome, error) {
	if s.transform == nil {
		return outcome{}, errors.New("the instance was not configured")
	}
	s.out.reset()
	s.failures = s.failures[:0]
	defer s.forget()
	// The first record that waits, and from which on the batch is run again.
	from := 0
	for rounds := 0; from < len(of.offsets); rounds++ {
		s.mode = collecting
		if rounds >= roundsMax {
			s.mode = atOnce
		}
		from = s.run(of, from)
		if err := s.catchUp(); err != nil {
			return outcome{}, err
		}
	}
	for _, store := range s.stores {
		if err := store.write(); err != nil {
			return outcome{}, err
		}
	}
	return outcome{s.out.ports, s.failures}, nil
}

// run returns the first record that waits, or how many there are. Those behind it are run to see which keys they want only.
func (s *step) run(of *batch, from int) int {
	first := len(of.offsets)
	for index := from; index < len(of.offsets); index++ {
		s.out.begin(uint32(index))
		s.hasWaited = false
		why, isFailure := s.one(Record{of, index})
		if s.hasWaited && index < first {
			first = index
		}
		if first <= index || isFailure {
			s.out.undo()
			s.undo()
		} else {
			s.keep()
		}
		if isFailure && first > index {
			s.failures = append(s.failures, failure{uint32(index), why})
		}
	}
	return first
}

// one runs a record, and returns why it failed, if it did. Telling that may panic, as an error that is nil within does.
func (s *step) one(record Record) (why string, isFailure bool) {
	defer func() {
		switch panicked := recover().(type) {
		case nil, waits:
		default:
			why, isFailure = reason(fmt.Errorf("panic: %v", panicked)), true
		}
	}()
	err := s.transform.Process(record, &s.out)
	if err == nil {
		err = s.out.failed
	}
	if err == nil {
		return "", false
	}
	return reason(err), true
}

func reason(err error) string {
	if text := err.Error(); text != "" {
		return strings.ToValidUTF8(text, "\ufffd")
	}
	return "an error without words"
}

func (s *step) catchUp() error {
	for _, table := range s.tables {
		if err := table.catchUp(); err != nil {
			return err
		}
	}
	for _, store := range s.stores {
		if err := store.catchUp(); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) keep() {
	for _, store := range s.stores {
		store.keep()
	}
}

func (s *step) undo() {
	for _, store := range s.stores {
		store.undo()
	}
}

func (s *step) forget() {
	s.mode = idle
	for _, table := range s.tables {
		table.forget()
	}
	for _, store := range s.stores {
		store.forget()
	}
}

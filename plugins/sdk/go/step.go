package plugin

import (
	"errors"
	"fmt"
)

// mode says how keys get their values.
type mode int

const (
	// Each is asked of the host at once, and nothing is kept: the plugin is being configured.
	direct mode = iota
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
	*s = step{about: registered.about}
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	s.transform, err = registered.configure(config)
	if err != nil {
		return needs{}, err
	}
	if s.transform == nil {
		return needs{}, errors.New("the function given to plugin.Register returned no transform")
	}
	needed = needs{ports: s.about.Ports, headers: s.about.Headers}
	for _, table := range s.tables {
		if !table.isOptional {
			needed.lookups = append(needed.lookups, table.name)
		}
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
		err := s.one(Record{of, index})
		if s.hasWaited && index < first {
			first = index
		}
		if err == nil {
			err = s.out.failed
		}
		if first <= index || err != nil {
			s.out.undo()
			s.undo()
		} else {
			s.keep()
		}
		if err != nil && first > index {
			s.failures = append(s.failures, failure{uint32(index), reason(err)})
		}
	}
	return first
}

func (s *step) one(record Record) (err error) {
	defer func() {
		switch panicked := recover().(type) {
		case nil, waits:
		default:
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	return s.transform.Process(record, &s.out)
}

func reason(err error) string {
	if text := err.Error(); text != "" {
		return text
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
	s.mode = direct
	for _, table := range s.tables {
		table.forget()
	}
	for _, store := range s.stores {
		store.forget()
	}
}

package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// State holds values by key that are the step's own: durable, and changed exactly once for each record. A step sees the state of the
// partition that its records come from.
type State struct{ store *store }

// OpenState asks for state, by the name under which the pipeline file gives it to the step (state = […]). It is called in the function
// given to [Register], and joins the plugin's needs: the host refuses to start unless the file gives it.
func OpenState(name string) State {
	current.mustConfigure("state", name)
	for _, store := range current.stores {
		if store.name == name {
			return State{store}
		}
	}
	added := &store{name: name, slots: map[string]*slot{}}
	current.stores = append(current.stores, added)
	return State{added}
}

// Get returns the value of a key, and whether there is one. It sees what this record and those before it have put.
//
// Where the key isn't known yet, Get does not return, and the record is processed again: see [Lookup.Get].
func (s State) Get(key []byte) (Value, bool) {
	found := s.store.get(key)
	return bytes.Clone(found), found != nil
}

// Put sets the value of a key. It is written even if it is what the key had: to put says that the entry is alive.
//
// The keys that the records of a batch changed are written at its end, each once. The host refuses a value that is too large for the
// state's topic: that costs the batch, which is then tried in parts, so that the record it belongs to fails alone.
func (s State) Put(key, value []byte) {
	if value == nil {
		value = empty
	}
	s.store.put(key, bytes.Clone(value))
}

// PutJSON sets the value of a key to that as JSON, as [encoding/json.Marshal] writes it.
func (s State) PutJSON(key []byte, value any) error {
	written, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("the value can't be written as JSON: %w", err)
	}
	s.store.put(key, written)
	return nil
}

// Remove removes a key. Where it is known that there is none, nothing is written.
func (s State) Remove(key []byte) { s.store.put(key, nil) }

// store is what a call knows of the state.
type store struct {
	name   string
	handle uint32
	isOpen bool
	slots  map[string]*slot
	// order has the slots as their keys were first named; what is written keeps it.
	order  []*slot
	wanted []*slot
	// journal has what the record being processed has changed, and as it was.
	journal []before
}

type slot struct {
	key      string
	isWanted bool
	// isKnown says that the key's value as the call began is known; nil is none.
	isKnown bool
	value   []byte
	// isPut says that put, nil for a removal, stands in its place.
	isPut bool
	put   []byte
}

type before struct {
	slot  *slot
	isPut bool
	put   []byte
}

func (s *store) slot(key []byte) *slot {
	if key == nil {
		panic("a key of state can't be null")
	}
	found := s.slots[string(key)]
	if found == nil {
		found = &slot{key: string(key)}
		s.slots[found.key] = found
		s.order = append(s.order, found)
	}
	return found
}

func (s *store) get(key []byte) []byte {
	slot := s.slot(key)
	if slot.isPut {
		return slot.put
	}
	if current.mode < collecting {
		panic("state is read while records are processed only")
	}
	if !slot.isKnown {
		if !slot.isWanted {
			slot.isWanted = true
			s.wanted = append(s.wanted, slot)
		}
		if current.mode == collecting {
			current.wait()
		}
		if err := s.catchUp(); err != nil {
			panic(err)
		}
	}
	return slot.value
}

func (s *store) put(key, value []byte) {
	if current.mode < collecting {
		panic("state is changed while records are processed only")
	}
	slot := s.slot(key)
	s.journal = append(s.journal, before{slot, slot.isPut, slot.put})
	slot.isPut, slot.put = true, value
}

func (s *store) keep() { s.journal = s.journal[:0] }

func (s *store) undo() {
	for last := len(s.journal) - 1; last >= 0; last-- {
		was := s.journal[last]
		was.slot.isPut, was.slot.put = was.isPut, was.put
	}
	s.journal = s.journal[:0]
}

func (s *store) open() error {
	if s.isOpen {
		return nil
	}
	handle, err := hostOpenState(s.name)
	if err != nil {
		return fmt.Errorf("state %q: %w", s.name, err)
	}
	s.handle, s.isOpen = handle, true
	return nil
}

func (s *store) catchUp() error {
	if len(s.wanted) == 0 {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	var keys column
	for _, slot := range s.wanted {
		keys.push([]byte(slot.key))
	}
	values := hostGet(s.handle, &keys)
	for index, slot := range s.wanted {
		slot.isWanted, slot.isKnown, slot.value = false, true, values.get(index)
	}
	s.wanted = s.wanted[:0]
	return nil
}

// write writes what was put with one call into the host.
func (s *store) write() error {
	var keys, values column
	for _, slot := range s.order {
		isNothing := slot.isKnown && slot.value == nil && slot.put == nil
		if slot.isPut && !isNothing {
			keys.push([]byte(slot.key))
			values.push(slot.put)
		}
	}
	if keys.len() == 0 {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	hostPut(s.handle, &keys, &values)
	return nil
}

func (s *store) forget() {
	clear(s.slots)
	s.order, s.wanted, s.journal = s.order[:0], s.wanted[:0], s.journal[:0]
}

package plugin

import (
	"bytes"
	"fmt"
)

// Lookup is a table that the pipeline file grants the step: a map of the pipeline, or a topic held as one.
type Lookup struct{ table *table }

// OpenLookup asks for a table, by the name under which the pipeline file grants it (lookups = […] of the step). It is called in the
// function given to [Register], and joins the plugin's needs: the host refuses to start unless the file grants it.
func OpenLookup(name string) Lookup {
	current.mustConfigure("lookup", name)
	for _, table := range current.tables {
		if table.name == name {
			return Lookup{table}
		}
	}
	added := &table{name: name}
	current.tables = append(current.tables, added)
	return Lookup{added}
}

// OpenLookupIfGranted is [OpenLookup] for plugins that can do without: the second result says whether the file grants it.
func OpenLookupIfGranted(name string) (Lookup, bool) {
	current.mustConfigure("lookup", name)
	handle, err := hostOpenLookup(name)
	if err != nil {
		return Lookup{}, false
	}
	lookup := OpenLookup(name)
	lookup.table.handle, lookup.table.isOpen = handle, true
	return lookup, true
}

func (s *step) mustConfigure(kind, name string) {
	if s.mode != configuring {
		panic(fmt.Sprintf("%s %q is opened in the function given to plugin.Register, and nowhere else", kind, name))
	}
}

// Get returns the value of a key, and whether the table has it.
//
// The keys of a whole batch are fetched at once: where a key isn't known yet, Get does not return. The record is processed again, from the
// start, once it is, and so are those behind it. What they had emitted and put is undone; what they changed elsewhere is not, so change
// nothing else. Such a try sees state without what the records before it will change. In another goroutine Get can't be called.
//
// A table that isn't replicated knows the keys of the batch's partition only; another one's fails the record.
func (l Lookup) Get(key []byte) (Value, bool) {
	found := l.table.get(key)
	return bytes.Clone(found), found != nil
}

// Value is what a table or state has under a key.
type Value []byte

// JSON reads the value as JSON into what target points to, as [encoding/json.Unmarshal] does.
func (v Value) JSON(target any) error { return unmarshal(v, target) }

type table struct {
	name   string
	handle uint32
	isOpen bool
	// known has nil for a key that the table doesn't have.
	known  map[string][]byte
	wanted []string
}

func (t *table) get(key []byte) []byte {
	if key == nil {
		return nil
	}
	if found, isKnown := t.known[string(key)]; isKnown {
		return found
	}
	if current.mode < collecting {
		panic("keys are looked up while records are processed only")
	}
	if current.mode == collecting {
		t.wanted = append(t.wanted, string(key))
		current.wait()
	}
	if err := t.fetch([]string{string(key)}); err != nil {
		panic(err)
	}
	return t.known[string(key)]
}

func (t *table) catchUp() error {
	if len(t.wanted) == 0 {
		return nil
	}
	err := t.fetch(t.wanted)
	t.wanted = t.wanted[:0]
	return err
}

// fetch may be given a key several times.
func (t *table) fetch(names []string) error {
	if !t.isOpen {
		handle, err := hostOpenLookup(t.name)
		if err != nil {
			return fmt.Errorf("lookup %q: %w", t.name, err)
		}
		t.handle, t.isOpen = handle, true
	}
	if t.known == nil {
		t.known = map[string][]byte{}
	}
	var keys column
	asked := names[:0:0]
	for _, name := range names {
		if _, isKnown := t.known[name]; !isKnown {
			t.known[name] = nil
			keys.push([]byte(name))
			asked = append(asked, name)
		}
	}
	values := hostLookup(t.handle, &keys)
	for index, name := range asked {
		t.known[name] = values.get(index)
	}
	return nil
}

func (t *table) forget() {
	clear(t.known)
	t.wanted = t.wanted[:0]
}

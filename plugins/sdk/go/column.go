package plugin

import "sort"

// column holds byte strings back to back, any of which may be null, as they cross the boundary.
type column struct {
	bytes []byte
	// ends has where each string ends in bytes.
	ends []uint32
	// nulls has the indices of those that are null, ascending.
	nulls []uint32
}

func (c *column) len() int { return len(c.ends) }

func (c *column) isNull(index int) bool {
	if len(c.nulls) == 0 {
		return false
	}
	at := sort.Search(len(c.nulls), func(i int) bool { return c.nulls[i] >= uint32(index) })
	return at < len(c.nulls) && c.nulls[at] == uint32(index)
}

// get returns nil for a null, and an empty slice that is not nil for an empty string.
func (c *column) get(index int) []byte {
	if c.isNull(index) {
		return nil
	}
	start, end := uint32(0), c.ends[index]
	if index > 0 {
		start = c.ends[index-1]
	}
	if start == end {
		return empty
	}
	return c.bytes[start:end:end]
}

// push adds a string; nil is null.
func (c *column) push(value []byte) {
	if value == nil {
		c.nulls = append(c.nulls, uint32(len(c.ends)))
	}
	c.bytes = append(c.bytes, value...)
	c.ends = append(c.ends, uint32(len(c.bytes)))
}

func (c *column) truncate(length int) {
	if length >= len(c.ends) {
		return
	}
	end := uint32(0)
	if length > 0 {
		end = c.ends[length-1]
	}
	c.bytes, c.ends = c.bytes[:end], c.ends[:length]
	for len(c.nulls) > 0 && c.nulls[len(c.nulls)-1] >= uint32(length) {
		c.nulls = c.nulls[:len(c.nulls)-1]
	}
}

func (c *column) reset() {
	c.bytes, c.ends, c.nulls = c.bytes[:0], c.ends[:0], c.nulls[:0]
}

var empty = []byte{}

// headers are those of several records; the owners of each never decrease.
type headers struct {
	owners        []uint32
	names, values column
}

// of returns where the headers of a record begin and end.
func (h *headers) of(owner int) (int, int) {
	at := func(wanted uint32) int {
		return sort.Search(len(h.owners), func(i int) bool { return h.owners[i] >= wanted })
	}
	if len(h.owners) == 0 {
		return 0, 0
	}
	return at(uint32(owner)), at(uint32(owner) + 1)
}

func (h *headers) push(owner int, header Header) {
	h.owners = append(h.owners, uint32(owner))
	h.names.push([]byte(header.Name))
	h.values.push(header.Value)
}

func (h *headers) truncate(owner int) {
	first, _ := h.of(owner)
	h.owners = h.owners[:first]
	h.names.truncate(first)
	h.values.truncate(first)
}

func (h *headers) reset() {
	h.owners = h.owners[:0]
	h.names.reset()
	h.values.reset()
}

// batch is what a call is about: records of one partition, in the order of their offsets.
type batch struct {
	inputs     []string
	inputOf    []uint32
	topic      string
	partition  uint32
	now        int64
	offsets    []int64
	timestamps []int64
	keys       column
	values     column
	headers    headers
}

type failure struct {
	origin uint32
	reason string
}

// outcome is what a call came to.
type outcome struct {
	ports    []*port
	failures []failure
}

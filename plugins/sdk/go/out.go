package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Out takes what becomes of a record. What is not emitted is dropped.
type Out struct {
	about  *About
	ports  []*port
	origin uint32
	failed error
}

// Emit begins an output record on the default port. It is the record being processed, but for what is set.
func (o *Out) Emit() *Emitted { return o.EmitTo("") }

// EmitTo begins an output record on a port that [About] names. Another one fails the record being processed.
func (o *Out) EmitTo(name string) *Emitted {
	if name != "" && !slices.Contains(o.about.Ports, name) {
		o.failed = fmt.Errorf("port %q is none of the plugin's About.Ports", name)
		name = ""
	}
	into := o.port(name)
	into.begin(o.origin)
	return &into.emitted
}

func (o *Out) port(name string) *port {
	for _, port := range o.ports {
		if port.name == name {
			return port
		}
	}
	added := &port{name: name}
	added.emitted = Emitted{out: o, port: added}
	o.ports = append(o.ports, added)
	return added
}

// begin begins a record: what is emitted from here on comes from it.
func (o *Out) begin(origin uint32) {
	o.origin, o.failed = origin, nil
	for _, port := range o.ports {
		port.mark = len(port.origins)
	}
}

// undo forgets what the record has emitted.
func (o *Out) undo() {
	for _, port := range o.ports {
		port.truncate(port.mark)
	}
}

func (o *Out) reset() {
	for _, port := range o.ports {
		port.reset()
	}
}

// Emitted is the output record that was begun last on its port. Its setters return it, so that they can follow one another.
type Emitted struct {
	out  *Out
	port *port
}

// SetKey sets the key; nil is null. Unless it is set, it is that of the record being processed.
func (e *Emitted) SetKey(key []byte) *Emitted {
	e.port.keys.set(len(e.port.origins)-1, key)
	return e
}

// SetValue sets the value; nil is null.
func (e *Emitted) SetValue(value []byte) *Emitted {
	e.port.values.set(len(e.port.origins)-1, value)
	return e
}

// SetJSON sets the value to that as JSON, as [encoding/json.Marshal] writes it. Where it can't be written the record being processed
// fails.
func (e *Emitted) SetJSON(value any) *Emitted {
	written, err := json.Marshal(value)
	if err != nil {
		e.out.failed = fmt.Errorf("the value can't be written as JSON: %w", err)
		return e
	}
	return e.SetValue(written)
}

// SetTimestamp sets the timestamp, in milliseconds since 1970-01-01 UTC.
func (e *Emitted) SetTimestamp(millis int64) *Emitted {
	e.port.setTimestamp(millis)
	return e
}

// SetHeaders sets all headers. The plugin must ask for headers: a record whose headers weren't seen couldn't keep them beside one whose
// headers were set.
func (e *Emitted) SetHeaders(all ...Header) *Emitted {
	if !e.out.about.Headers {
		e.out.failed = errors.New("headers are set, and the plugin's About.Headers doesn't ask for them")
		return e
	}
	own := make([]Header, len(all))
	for at, header := range all {
		if !utf8.ValidString(header.Name) {
			e.out.failed = fmt.Errorf("a header's name isn't UTF-8: %q", header.Name)
			return e
		}
		own[at] = Header{header.Name, bytes.Clone(header.Value)}
	}
	e.port.setHeaders(own)
	return e
}

// port is what leaves by one port. A column holds cells up to the last one that was set; what is unset inherits, and is filled in at
// the end.
type port struct {
	name       string
	origins    []uint32
	keys       cells
	values     cells
	timestamps []stamp
	headers    []ownHeaders
	emitted    Emitted
	// mark is where the record being processed has begun.
	mark int
}

type stamp struct {
	row    int
	millis int64
}

type ownHeaders struct {
	row int
	all []Header
}

func (p *port) begin(origin uint32) { p.origins = append(p.origins, origin) }

func (p *port) setTimestamp(millis int64) {
	row := len(p.origins) - 1
	if last := len(p.timestamps) - 1; last >= 0 && p.timestamps[last].row == row {
		p.timestamps[last].millis = millis
		return
	}
	p.timestamps = append(p.timestamps, stamp{row, millis})
}

func (p *port) setHeaders(all []Header) {
	row := len(p.origins) - 1
	if last := len(p.headers) - 1; last >= 0 && p.headers[last].row == row {
		p.headers[last].all = all
		return
	}
	p.headers = append(p.headers, ownHeaders{row, all})
}

func (p *port) truncate(length int) {
	if length >= len(p.origins) {
		return
	}
	p.origins = p.origins[:length]
	p.keys.truncate(length)
	p.values.truncate(length)
	for last := len(p.timestamps) - 1; last >= 0 && p.timestamps[last].row >= length; last-- {
		p.timestamps = p.timestamps[:last]
	}
	for last := len(p.headers) - 1; last >= 0 && p.headers[last].row >= length; last-- {
		p.headers = p.headers[:last]
	}
}

func (p *port) reset() {
	p.origins, p.mark = p.origins[:0], 0
	p.keys.reset()
	p.values.reset()
	p.timestamps, p.headers = p.timestamps[:0], p.headers[:0]
}

// cells are the strings that were set, with the rows that they stand in.
type cells struct {
	rows   []uint32
	column column
}

func (c *cells) set(row int, value []byte) {
	if last := len(c.rows) - 1; last >= 0 && c.rows[last] == uint32(row) {
		c.rows = c.rows[:last]
		c.column.truncate(last)
	}
	c.rows = append(c.rows, uint32(row))
	c.column.push(value)
}

func (c *cells) truncate(length int) {
	kept := len(c.rows)
	for kept > 0 && c.rows[kept-1] >= uint32(length) {
		kept--
	}
	c.rows = c.rows[:kept]
	c.column.truncate(kept)
}

func (c *cells) reset() {
	c.rows = c.rows[:0]
	c.column.reset()
}

// whole returns the column of all rows, nil where none was set.
func (c *cells) whole(origins []uint32, inherited *column) *column {
	if len(c.rows) == 0 {
		return nil
	}
	if len(c.rows) == len(origins) {
		return &c.column
	}
	all := &column{ends: make([]uint32, 0, len(origins))}
	next := 0
	for row, origin := range origins {
		if next < len(c.rows) && c.rows[next] == uint32(row) {
			all.push(c.column.get(next))
			next++
		} else {
			all.push(inherited.get(int(origin)))
		}
	}
	return all
}

// wholeTimestamps returns those of all rows, nil where none was set.
func (p *port) wholeTimestamps(of *batch) []int64 {
	if len(p.timestamps) == 0 {
		return nil
	}
	all := make([]int64, len(p.origins))
	for row, origin := range p.origins {
		all[row] = of.timestamps[origin]
	}
	for _, set := range p.timestamps {
		all[set.row] = set.millis
	}
	return all
}

// wholeHeaders returns those of all rows, nil where none were set.
func (p *port) wholeHeaders(of *batch) *headers {
	if len(p.headers) == 0 {
		return nil
	}
	all, next := &headers{}, 0
	for row, origin := range p.origins {
		if next < len(p.headers) && p.headers[next].row == row {
			for _, header := range p.headers[next].all {
				all.push(row, header)
			}
			next++
			continue
		}
		for _, header := range (Record{of, int(origin)}).Headers() {
			all.push(row, header)
		}
	}
	return all
}

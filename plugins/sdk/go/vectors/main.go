// Command vectors is the plugin that every SDK has in its language: it does what the first word of a record's value says, as
// plugins/sdk/vectors/README.md has it.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"millstream.dev/plugin"
)

type config struct {
	Greeting string `json:"greeting"`
}

type vectors struct {
	config config
	words  plugin.Lookup
	totals plugin.State
}

func init() {
	about := plugin.About{Name: "vectors", Version: "1.0.0", Ports: []string{"other"}, Headers: true}
	plugin.Register(about, func(config config) (plugin.Transform, error) {
		return vectors{config, plugin.OpenLookup("words"), plugin.OpenState("totals")}, nil
	})
}

func main() {}

func (v vectors) Process(record plugin.Record, out *plugin.Out) error {
	if record.Value() == nil {
		return errors.New("the value is null")
	}
	word, rest, _ := strings.Cut(string(record.Value()), " ")
	switch word {
	case "keep":
		out.Emit()
	case "drop":
	case "key":
		out.Emit().SetKey([]byte(rest))
	case "value":
		out.Emit().SetValue([]byte(rest))
	case "greet":
		out.Emit().SetValue([]byte(v.config.Greeting))
	case "time":
		millis, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			return err
		}
		out.Emit().SetTimestamp(millis)
	case "timeless":
		out.Emit().SetTimestamp(-1)
	case "nulls":
		out.Emit().SetKey(nil).SetValue(nil)
	case "empties":
		out.Emit().SetKey([]byte{}).SetValue([]byte{})
	case "upper":
		out.Emit().SetValue([]byte(strings.ToUpper(rest)))
	case "long", "many":
		return repeat(word, rest, out)
	case "port":
		out.EmitTo(rest)
	case "both":
		out.EmitTo("other")
		out.Emit()
	case "header":
		value, _ := record.Header(rest)
		out.Emit().SetHeaders(plugin.Header{Name: "seen", Value: value})
	case "json":
		var object map[string]any
		if err := (plugin.Value(rest)).JSON(&object); err != nil {
			return err
		}
		object["n"] = object["n"].(float64) + 1
		out.Emit().SetJSON(object)
	case "fail":
		out.Emit()
		return errors.New(rest)
	case "crash":
		out.Emit().SetValue([]byte(strings.Split(rest, " ")[7]))
	case "count", "count-and-fail", "forget":
		return v.count(word, record, out)
	case "look":
		found, _ := v.words.Get([]byte(rest))
		out.Emit().SetValue(found)
	case "follow":
		at := plugin.Value(rest)
		for next, is := v.words.Get(at); is; next, is = v.words.Get(at) {
			at = next
		}
		out.Emit().SetValue(at)
	default:
		return fmt.Errorf("no such word: %q", word)
	}
	return nil
}

func repeat(word, times string, out *plugin.Out) error {
	count, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	if word == "long" {
		out.Emit().SetValue(bytes.Repeat([]byte("x"), count))
		return nil
	}
	for number := range count {
		out.Emit().SetValue([]byte(strconv.Itoa(number)))
	}
	return nil
}

func (v vectors) count(word string, record plugin.Record, out *plugin.Out) error {
	if word == "forget" {
		v.totals.Remove(record.Key())
		out.Emit()
		return nil
	}
	total := 0
	if found, is := v.totals.Get(record.Key()); is {
		if err := found.JSON(&total); err != nil {
			return err
		}
	}
	if err := v.totals.PutJSON(record.Key(), total+1); err != nil {
		return err
	}
	out.Emit().SetValue([]byte(strconv.Itoa(total + 1)))
	if word == "count-and-fail" {
		return errors.New("counted in vain")
	}
	return nil
}

package plugin

import (
	"errors"
	"reflect"
	"strconv"
	"testing"
)

// start registers a plugin for one test.
func start[C any](t *testing.T, about About, create func(C) (Transform, error), config any, granted map[string]Table) *Harness {
	t.Helper()
	registered = nil
	Register(about, create)
	h, err := NewHarness(config, granted)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func texts(all []Output) []string {
	var found []string
	for _, output := range all {
		found = append(found, string(output.Value))
	}
	return found
}

func expect[T any](t *testing.T, found, expected T) {
	t.Helper()
	if !reflect.DeepEqual(found, expected) {
		t.Fatalf("found %v, expected %v", found, expected)
	}
}

func process(t *testing.T, h *Harness, records ...Input) Processed {
	t.Helper()
	processed, err := h.Process(records...)
	if err != nil {
		t.Fatal(err)
	}
	return processed
}

func value(text string) Input { return Input{Value: []byte(text), Timestamp: 5} }

func keyed(key, text string) Input { return Input{Key: []byte(key), Value: []byte(text), Timestamp: 5} }

func TestWhatIsNotSetIsInherited(t *testing.T) {
	h := start(t, About{Headers: true, Ports: []string{"other"}}, func(NoConfig) (Transform, error) {
		return Func(func(record Record, out *Out) error {
			switch string(record.Value()) {
			case "drop":
			case "key":
				out.Emit().SetKey([]byte("new"))
			case "null":
				out.Emit().SetKey(nil).SetValue(nil).SetTimestamp(-1)
			case "headers":
				out.EmitTo("other").SetHeaders(Header{"b", nil})
			case "twice":
				out.Emit().SetValue([]byte("1"))
				out.Emit().SetValue(nil).SetValue([]byte("2"))
			default:
				out.EmitTo("other")
				out.Emit()
			}
			return nil
		}), nil
	}, nil, nil)
	header := []Header{{"a", []byte("x")}}
	var records []Input
	for _, text := range []string{"drop", "key", "null", "headers", "twice", ""} {
		records = append(records, Input{[]byte("k"), []byte(text), 5, header, ""})
	}
	found := process(t, h, records...)
	expect(t, found.Outputs, []Output{
		{"", 1, []byte("new"), []byte("key"), 5, header},
		{"", 2, nil, nil, -1, header},
		{"", 4, []byte("k"), []byte("1"), 5, header},
		{"", 4, []byte("k"), []byte("2"), 5, header},
		{"", 5, []byte("k"), []byte{}, 5, header},
		{"other", 3, []byte("k"), []byte("headers"), 5, []Header{{"b", nil}}},
		{"other", 5, []byte("k"), []byte{}, 5, header},
	})
}

func TestAnErrorOrPanicFailsOneRecord(t *testing.T) {
	h := start(t, About{}, func(NoConfig) (Transform, error) {
		return Func(func(record Record, out *Out) error {
			emitted := out.Emit()
			switch string(record.Value()) {
			case "error":
				return errors.New("asked to")
			case "empty":
				return errors.New("")
			case "panic":
				panic("no way")
			case "nil":
				var none *Out
				none.Emit()
			case "json":
				emitted.SetJSON(func() {})
			}
			return nil
		}), nil
	}, nil, nil)
	found := process(t, h, value("a"), value("error"), value("empty"), value("panic"), value("nil"), value("json"), value("b"))
	expect(t, texts(found.Outputs), []string{"a", "b"})
	expect(t, len(found.Failures), 5)
	expect(t, found.Failures[0], Failure{1, "asked to"})
	expect(t, found.Failures[1].Reason, "an error without words")
	expect(t, found.Failures[2], Failure{3, "panic: no way"})
	expect(t, found.Failures[4].Origin, 5)
}

func TestConfigurationIsHeldAgainstItsType(t *testing.T) {
	type config struct {
		MinAge int `json:"min_age"`
	}
	check := func(given any, expected string) {
		t.Helper()
		registered = nil
		Register(About{}, func(config config) (Transform, error) {
			if config.MinAge < 0 {
				return nil, errors.New("min_age is negative")
			}
			return Filter(func(Record) (bool, error) { return true, nil }), nil
		})
		_, err := NewHarness(given, nil)
		found := ""
		if err != nil {
			found = err.Error()
		}
		expect(t, found, expected)
	}
	check(map[string]any{"min_age": 5}, "")
	check(nil, "")
	check(map[string]any{"min_aeg": 5}, `config: json: unknown field "min_aeg"`)
	check(map[string]any{"min_age": -5}, "min_age is negative")
}

func TestKeysOfABatchAreFetchedAtOnce(t *testing.T) {
	h := start(t, About{}, func(NoConfig) (Transform, error) {
		countries := OpenLookup("countries")
		return Func(func(record Record, out *Out) error {
			found, is := countries.Get(record.Key())
			if !is {
				return errors.New("no such country")
			}
			out.Emit().SetValue(found)
			return nil
		}), nil
	}, nil, map[string]Table{"countries": {"DE": "Germany", "FR": ""}})
	expect(t, h.Needs.Lookups, []string{"countries"})
	found := process(t, h, keyed("DE", ""), keyed("XX", ""), keyed("FR", ""), keyed("DE", ""))
	expect(t, texts(found.Outputs), []string{"Germany", "", "Germany"})
	expect(t, found.Failures, []Failure{{1, "no such country"}})
	expect(t, found.Fetches, []int{3})
}

func TestStateIsChangedInOrderAndOnce(t *testing.T) {
	h := start(t, About{}, func(NoConfig) (Transform, error) {
		totals := OpenState("totals")
		return Func(func(record Record, out *Out) error {
			count := 0
			if found, is := totals.Get(record.Key()); is {
				if err := found.JSON(&count); err != nil {
					return err
				}
			}
			if err := totals.PutJSON(record.Key(), count+1); err != nil {
				return err
			}
			if string(record.Value()) == "fail" {
				return errors.New("asked to")
			}
			if string(record.Value()) == "remove" {
				totals.Remove(record.Key())
			}
			out.Emit().SetValue([]byte(strconv.Itoa(count + 1)))
			return nil
		}), nil
	}, nil, nil)
	h.SetState("totals", Table{"a": "5", "c": "1"})
	found := process(t, h, keyed("a", ""), keyed("b", ""), keyed("a", "fail"), keyed("a", ""), keyed("c", "remove"))
	expect(t, texts(found.Outputs), []string{"6", "1", "7", "2"})
	expect(t, found.Failures, []Failure{{2, "asked to"}})
	expect(t, h.State("totals"), Table{"a": "7", "b": "1"})
	expect(t, found.Fetches, []int{3})
	expect(t, found.Puts, []int{3})
}

func TestKeysThatDependOnOthersAreFetchedInTheEnd(t *testing.T) {
	h := start(t, About{}, func(NoConfig) (Transform, error) {
		chain := OpenLookup("chain")
		return Func(func(record Record, out *Out) error {
			at := Value(record.Key())
			for {
				next, is := chain.Get(at)
				if !is {
					break
				}
				at = next
			}
			out.Emit().SetValue(at)
			return nil
		}), nil
	}, nil, map[string]Table{"chain": {"a": "b", "b": "c", "c": "d", "d": "e", "e": "f", "f": "g", "g": "h"}})
	found := process(t, h, keyed("a", ""), keyed("f", ""))
	expect(t, texts(found.Outputs), []string{"h", "h"})
}

func TestWhoeverHoldsUpWhatWaitsChangesNothing(t *testing.T) {
	h := start(t, About{}, func(NoConfig) (Transform, error) {
		countries := OpenLookup("countries")
		return Func(func(record Record, out *Out) error {
			defer func() {
				if recover() != nil {
					out.Emit().SetValue([]byte("held up"))
				}
			}()
			found, _ := countries.Get(record.Key())
			out.Emit().SetValue(found)
			return nil
		}), nil
	}, nil, map[string]Table{"countries": {"DE": "Germany"}})
	expect(t, texts(process(t, h, keyed("DE", ""), keyed("DE", "")).Outputs), []string{"Germany", "Germany"})
}

type words struct{ text string }

func (w *words) Error() string { return w.text }

func TestWhatAPluginDidNotAskForFailsTheRecord(t *testing.T) {
	h := start(t, About{}, func(NoConfig) (Transform, error) {
		totals := OpenState("totals")
		return Func(func(record Record, out *Out) error {
			switch string(record.Value()) {
			case "port":
				out.EmitTo("other")
			case "headers":
				out.Emit().SetHeaders(Header{"a", nil})
			case "late":
				OpenState("late")
			case "bytes":
				return errors.New("\xff")
			case "nil":
				var none *words
				return none
			case "undo":
				found, _ := totals.Get([]byte("k"))
				found[0]++
				totals.Put([]byte("k"), found)
				return errors.New("asked to")
			default:
				totals.Put([]byte("k"), []byte("1"))
			}
			return nil
		}), nil
	}, nil, nil)
	found := process(t, h, value("put"), value("port"), value("headers"), value("late"), value("bytes"), value("nil"), value("undo"))
	expect(t, len(found.Outputs), 0)
	var reasons []string
	for _, failure := range found.Failures {
		reasons = append(reasons, failure.Reason)
	}
	expect(t, reasons, []string{
		`port "other" is none of the plugin's About.Ports`,
		"headers are set, and the plugin's About.Headers doesn't ask for them",
		`panic: state "late" is opened in the function given to plugin.Register, and nowhere else`,
		"\ufffd",
		"panic: runtime error: invalid memory address or nil pointer dereference",
		"asked to",
	})
	expect(t, h.State("totals"), Table{"k": "1"})
}

func TestHeadersAreCopied(t *testing.T) {
	h := start(t, About{Headers: true}, func(NoConfig) (Transform, error) {
		buffer := []byte{0}
		return Func(func(record Record, out *Out) error {
			buffer[0] = record.Value()[0]
			out.Emit().SetHeaders(Header{"a", buffer})
			return nil
		}), nil
	}, nil, nil)
	found := process(t, h, value("1"), value("2"))
	expect(t, string(found.Outputs[0].Headers[0].Value)+string(found.Outputs[1].Headers[0].Value), "12")
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"millstream.dev/plugin"
)

// text is a string of the vectors: text, null, or a text that is repeated.
type text struct{ bytes []byte }

func (t *text) UnmarshalJSON(given []byte) error {
	var whole *string
	if json.Unmarshal(given, &whole) == nil {
		if whole != nil {
			t.bytes = []byte(*whole)
		}
		return nil
	}
	var repeated struct {
		Before, Repeat string
		Times          int
	}
	err := json.Unmarshal(given, &repeated)
	t.bytes = []byte(repeated.Before + strings.Repeat(repeated.Repeat, repeated.Times))
	return err
}

type record struct {
	Port       string
	Origin     int
	Key, Value text
	JSON       any
	Timestamp  json.RawMessage
	Headers    [][2]text
}

// input is the record as the harness takes it, or as it has to come out.
func (r record) input(t *testing.T) plugin.Input {
	input := plugin.Input{Key: r.Key.bytes, Value: r.Value.bytes, Timestamp: 1000}
	if string(r.Timestamp) == "null" {
		input.Timestamp = -1
	} else if r.Timestamp != nil {
		if err := json.Unmarshal(r.Timestamp, &input.Timestamp); err != nil {
			t.Fatal(err)
		}
	}
	for _, header := range r.Headers {
		input.Headers = append(input.Headers, plugin.Header{Name: string(header[0].bytes), Value: header[1].bytes})
	}
	return input
}

type suite struct {
	Config  any
	Lookups map[string]plugin.Table
	Cases   []struct {
		Name             string
		Before, After    plugin.Table
		Records, Outputs []record
		Failures         []plugin.Failure
	}
}

func TestVectors(t *testing.T) {
	file, err := os.ReadFile("../../vectors/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var suite suite
	if err := json.Unmarshal(file, &suite); err != nil {
		t.Fatal(err)
	}
	for _, vector := range suite.Cases {
		t.Run(vector.Name, func(t *testing.T) {
			harness, err := plugin.NewHarness(suite.Config, suite.Lookups)
			if err != nil {
				t.Fatal(err)
			}
			harness.SetState("totals", vector.Before)
			var inputs []plugin.Input
			for _, record := range vector.Records {
				inputs = append(inputs, record.input(t))
			}
			processed, err := harness.Process(inputs...)
			if err != nil {
				t.Fatal(err)
			}
			outputs := byPort(processed.Outputs)
			if len(outputs) != len(vector.Outputs) {
				t.Fatalf("%d outputs, expected %d: %v", len(outputs), len(vector.Outputs), processed.Failures)
			}
			for at, expected := range vector.Outputs {
				check(t, outputs[at], expected)
			}
			for at, expected := range vector.Failures {
				found := processed.Failures[at]
				if found.Origin != expected.Origin || !strings.Contains(found.Reason, expected.Reason) {
					t.Errorf("failure %v, expected %v", found, expected)
				}
			}
			if len(processed.Failures) != len(vector.Failures) {
				t.Errorf("failures %v", processed.Failures)
			}
			if after := harness.State("totals"); len(after)+len(vector.After) > 0 && !reflect.DeepEqual(after, vector.After) {
				t.Errorf("state %v, expected %v", after, vector.After)
			}
		})
	}
}

// byPort has what came out by the default port behind the others.
func byPort(all []plugin.Output) []plugin.Output {
	var named, plain []plugin.Output
	for _, output := range all {
		if output.Port == "" {
			plain = append(plain, output)
		} else {
			named = append(named, output)
		}
	}
	return append(named, plain...)
}

func check(t *testing.T, found plugin.Output, expected record) {
	t.Helper()
	wanted := expected.input(t)
	isValue := bytes.Equal(found.Value, wanted.Value) && (found.Value == nil) == (wanted.Value == nil)
	if expected.JSON != nil {
		var value any
		isValue = json.Unmarshal(found.Value, &value) == nil && reflect.DeepEqual(value, expected.JSON)
	}
	isKey := bytes.Equal(found.Key, wanted.Key) && (found.Key == nil) == (wanted.Key == nil)
	if found.Port != expected.Port || found.Origin != expected.Origin || !isKey || !isValue ||
		found.Timestamp != wanted.Timestamp || !reflect.DeepEqual(found.Headers, wanted.Headers) {
		t.Errorf("found %.300v, expected %.300v", found, expected)
	}
}

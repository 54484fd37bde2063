package plugin

import (
	"fmt"
	"strings"
)

// Level says how much a line of the log matters.
type Level int

// The levels, from the least on.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)

// Log writes a line to the operator's log, formatted as by [fmt.Sprintf]. It is marked there with the step.
func Log(level Level, format string, arguments ...any) {
	hostLog(level, strings.ToValidUTF8(fmt.Sprintf(format, arguments...), "\ufffd"))
}

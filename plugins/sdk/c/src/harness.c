/* The host of a test. */

#include <millstream_testing.h>

#include "core.h"
#include "stores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A table or state: entries in the order in which they came. */
typedef struct {
  char *name;
  bool is_state;
  ms_header_pair *entries;
  size_t count;
} held;

static held *all;
static size_t all_count;
static ms_processed processed;
static column answered;
static buffer outputs, failures, headers;

static void *checked(void *memory) {
  if (!memory) abort();
  return memory;
}

static ms_bytes copied(ms_bytes of) {
  if (!of.at) return MS_NULL;
  uint8_t *own = checked(malloc(of.length + 1));
  memcpy(own, of.at, of.length);
  return (ms_bytes){own, of.length};
}

static held *find(const char *name, bool is_state) {
  for (size_t at = 0; at < all_count; at++) {
    if (all[at].is_state == is_state && strcmp(all[at].name, name) == 0) return &all[at];
  }
  return NULL;
}

static held *added(const char *name, bool is_state) {
  held *found = find(name, is_state);
  if (found) return found;
  all = checked(realloc(all, (all_count + 1) * sizeof *all));
  char *own = checked(malloc(strlen(name) + 1));
  all[all_count] = (held){.name = strcpy(own, name), .is_state = is_state};
  return &all[all_count++];
}

static void set(held *of, ms_bytes key, ms_bytes value) {
  for (size_t at = 0; at < of->count; at++) {
    if (!ms_equal(of->entries[at].name, key)) continue;
    free((void *)of->entries[at].value.at);
    of->entries[at].value = copied(value);
    if (value.at) return;
    free((void *)of->entries[at].name.at);
    memmove(&of->entries[at], &of->entries[at + 1], (of->count - at - 1) * sizeof *of->entries);
    of->count--;
    return;
  }
  if (!value.at) return;
  of->entries = checked(realloc(of->entries, (of->count + 1) * sizeof *of->entries));
  of->entries[of->count++] = (ms_header_pair){copied(key), copied(value)};
}

static ms_bytes get(const held *of, ms_bytes key) {
  for (size_t at = 0; at < of->count; at++) {
    if (ms_equal(of->entries[at].name, key)) return of->entries[at].value;
  }
  return MS_NULL;
}

static void clear(held *of) {
  while (of->count) set(of, of->entries[0].name, MS_NULL);
  free(of->entries);
  of->entries = NULL;
}

void ms_test_reset(void) {
  stores_reset();
  for (size_t at = 0; at < all_count; at++) {
    clear(&all[at]);
    free(all[at].name);
  }
  all_count = 0;
}

void ms_test_grant(const char *lookup, ms_bytes key, ms_bytes value) { set(added(lookup, false), key, value); }

const char *ms_test_configure(const char *config) {
  static needs needed;
  static char why[256];
  const char *wrong = core_configure(ms_text(config), &needed);
  if (wrong) return wrong;
  for (size_t at = 0; at < needed.lookups_count; at++) {
    if (find(needed.lookups[at], false)) continue;
    snprintf(why, sizeof why, "the plugin needs the lookup \"%s\", which the test doesn't grant", needed.lookups[at]);
    return why;
  }
  for (size_t at = 0; at < needed.state_count; at++) added(needed.state[at], true);
  return NULL;
}

void ms_test_set_state(const char *state, ms_bytes key, ms_bytes value) { set(added(state, true), key, value); }

ms_bytes ms_test_state(const char *state, ms_bytes key) {
  const held *found = find(state, true);
  return found ? get(found, key) : MS_NULL;
}

size_t ms_test_state_count(const char *state) {
  const held *found = find(state, true);
  return found ? found->count : 0;
}

/* ---- What the plugin asks for. ---- */

static const char *open(const char *name, bool is_state, uint32_t *handle) {
  const held *found = find(name, is_state);
  if (!found) return is_state ? "the pipeline file gives the step no such state" : "the pipeline file grants the step no such lookup";
  *handle = (uint32_t)(found - all);
  return NULL;
}

const char *host_open_lookup(const char *name, uint32_t *handle) { return open(name, false, handle); }

const char *host_open_state(const char *name, uint32_t *handle) { return open(name, true, handle); }

strings host_look(uint32_t handle, const strings *keys) {
  /* What was answered before is still in use. */
  column fresh = {0};
  for (size_t at = 0; at < keys->count; at++) column_add(&fresh, get(&all[handle], strings_get(keys, at)));
  processed.fetches++;
  answered = fresh;
  return column_strings(&answered);
}

strings host_get(uint32_t handle, const strings *keys) { return host_look(handle, keys); }

void host_put(uint32_t handle, const strings *keys, const strings *values) {
  for (size_t at = 0; at < keys->count; at++) set(&all[handle], strings_get(keys, at), strings_get(values, at));
  processed.puts++;
}

void host_log(ms_level level, ms_bytes message) { fprintf(stderr, "log %d: %.*s\n", level, (int)message.length, (const char *)message.at); }

/* ---- A batch. ---- */

typedef struct {
  column keys, values, names, header_values;
  buffer offsets, timestamps, owners, inputs, input_of;
} filled;

static void fill(filled *to, const ms_test_input *record, size_t index) {
  column_add(&to->keys, record->key);
  column_add(&to->values, record->value);
  int64_t offset = (int64_t)index;
  buffer_add(&to->offsets, &offset, sizeof offset);
  buffer_add(&to->timestamps, &record->timestamp, sizeof record->timestamp);
  ms_bytes input = record->input.at ? record->input : ms_text("input");
  const ms_bytes *inputs = (const ms_bytes *)to->inputs.at;
  uint32_t number = 0;
  while (number < to->inputs.length / sizeof input && !ms_equal(inputs[number], input)) number++;
  if (number == to->inputs.length / sizeof input) buffer_add(&to->inputs, &input, sizeof input);
  buffer_add(&to->input_of, &number, sizeof number);
  for (size_t at = 0; ms_plugin.headers && at < record->headers_count; at++) {
    uint32_t owner = (uint32_t)index;
    buffer_add(&to->owners, &owner, sizeof owner);
    column_add(&to->names, record->headers[at].name);
    column_add(&to->header_values, record->headers[at].value);
  }
}

static batch batch_of(const filled *of, size_t count) {
  return (batch){
      .inputs = (const ms_bytes *)of->inputs.at,
      .inputs_count = of->inputs.length / sizeof(ms_bytes),
      .input_of = (const uint32_t *)of->input_of.at,
      .topic = ms_text("topic"),
      .now = 1000,
      .offsets = (const int64_t *)of->offsets.at,
      .timestamps = (const int64_t *)of->timestamps.at,
      .count = count,
      .keys = column_strings(&of->keys),
      .values = column_strings(&of->values),
      .headers = {(const uint32_t *)of->owners.at, of->owners.length / sizeof(uint32_t), column_strings(&of->names),
                  column_strings(&of->header_values)},
  };
}

/* With all that it inherits. */
static void add_output(const output *port, size_t row, const ms_test_input *records) {
  size_t origin = port->origins[row];
  const ms_test_input *record = &records[origin];
  ms_test_output out = {
      .port = port->port,
      .origin = origin,
      .key = port->has_keys ? strings_get(&port->keys, row) : record->key,
      .value = port->has_values ? strings_get(&port->values, row) : record->value,
      .timestamp = port->has_timestamps ? port->timestamps[row] : record->timestamp,
      .headers = record->headers,
      .headers_count = record->headers_count,
  };
  if (port->has_headers) {
    ms_header_pair *own = checked(calloc(port->headers.count + 1, sizeof *own));
    out.headers_count = 0;
    for (size_t at = 0; at < port->headers.count; at++) {
      if (port->headers.owners[at] != row) continue;
      own[out.headers_count++] = (ms_header_pair){strings_get(&port->headers.names, at), strings_get(&port->headers.values, at)};
    }
    out.headers = own;
    buffer_add(&headers, &own, sizeof own);
  }
  buffer_add(&outputs, &out, sizeof out);
}

ms_processed ms_test_process(const ms_test_input *records, size_t count) {
  static filled given;
  static ms_header_pair **before;
  for (size_t at = 0; at < headers.length / sizeof *before; at++) free(((ms_header_pair **)headers.at)[at]);
  column *columns[] = {&given.keys, &given.values, &given.names, &given.header_values};
  for (size_t at = 0; at < 4; at++) column_free(columns[at]);
  given.offsets.length = given.timestamps.length = given.owners.length = given.inputs.length = given.input_of.length = 0;
  headers.length = outputs.length = failures.length = 0;
  for (size_t at = 0; at < count; at++) fill(&given, &records[at], at);
  batch of = batch_of(&given, count);
  outcome came = {0};
  processed = (ms_processed){0};
  processed.why = core_process(&of, &came);
  for (size_t at = 0; at < came.outputs_count; at++) {
    for (size_t row = 0; row < came.outputs[at].count; row++) add_output(&came.outputs[at], row, records);
  }
  for (size_t at = 0; at < came.failures_count; at++) {
    ms_test_failure failed = {came.failures[at].origin, came.failures[at].reason};
    buffer_add(&failures, &failed, sizeof failed);
  }
  processed.outputs = (const ms_test_output *)outputs.at;
  processed.outputs_count = outputs.length / sizeof(ms_test_output);
  processed.failures = (const ms_test_failure *)failures.at;
  processed.failures_count = failures.length / sizeof(ms_test_failure);
  return processed;
}

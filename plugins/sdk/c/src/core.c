/* A batch, record by record: what waits for keys is run again, and what fails leaves nothing behind. */

#include "core.h"

#include "out.h"
#include "stores.h"

/* So often a batch may wait for keys that it asked for only once it knew others; then they are fetched one by one. */
#define ROUNDS_MAX 4

struct ms_record {
  const batch *of;
  size_t index;
};

ms_bytes ms_key(const ms_record *record) { return strings_get(&record->of->keys, record->index); }

ms_bytes ms_value(const ms_record *record) { return strings_get(&record->of->values, record->index); }

int64_t ms_timestamp(const ms_record *record) { return record->of->timestamps[record->index]; }

int64_t ms_now(const ms_record *record) { return record->of->now; }

ms_bytes ms_topic(const ms_record *record) { return record->of->topic; }

uint32_t ms_partition(const ms_record *record) { return record->of->partition; }

int64_t ms_offset(const ms_record *record) { return record->of->offsets[record->index]; }

ms_bytes ms_input(const ms_record *record) {
  const batch *of = record->of;
  return of->inputs[of->inputs_count > 1 ? of->input_of[record->index] : 0];
}

size_t headers_of(const header_rows *headers, size_t owner) {
  size_t low = 0, high = headers->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (headers->owners[middle] < owner) low = middle + 1;
    else high = middle;
  }
  return low;
}

size_t ms_header_count(const ms_record *record) {
  const header_rows *headers = &record->of->headers;
  return headers_of(headers, record->index + 1) - headers_of(headers, record->index);
}

void ms_header_at(const ms_record *record, size_t index, ms_bytes *name, ms_bytes *value) {
  const header_rows *headers = &record->of->headers;
  size_t at = headers_of(headers, record->index) + index;
  *name = strings_get(&headers->names, at);
  *value = strings_get(&headers->values, at);
}

bool ms_header(const ms_record *record, ms_bytes name, ms_bytes *value) {
  for (size_t index = ms_header_count(record); index-- > 0;) {
    ms_bytes other;
    ms_header_at(record, index, &other, value);
    if (ms_equal(other, name)) return true;
  }
  *value = MS_NULL;
  return false;
}

void ms_log(ms_level level, ms_bytes message) {
  buffer text = {0};
  buffer_add_text(&text, message);
  host_log(level, (ms_bytes){text.at, text.length});
  buffer_free(&text);
}

const char *core_configure(ms_bytes config, needs *needed) {
  const char *why = ms_configure(config);
  if (!why) stores_needs(needed);
  return why;
}

/* Of failures; their reasons stand in `reasons`, at these places. */
typedef struct {
  uint32_t origin;
  size_t at, length;
} failed;

static buffer failures, reasons, told;

static void fail(uint32_t origin, const char *otherwise) {
  ms_bytes reason = out_reason(the_out());
  if (!reason.at || !reason.length) reason = ms_text(otherwise);
  failed added = {origin, reasons.length, 0};
  buffer_add_text(&reasons, reason);
  added.length = reasons.length - added.at;
  buffer_add(&failures, &added, sizeof added);
}

/* Returns the first record that waits, or how many there are. Those behind it are run to see which keys they want only. */
static size_t run(const batch *of, size_t from) {
  ms_out *out = the_out();
  size_t waits = of->count;
  for (size_t index = from; index < of->count; index++) {
    ms_record record = {of, index};
    out_begin(out, (uint32_t)index);
    ms_status status = ms_process(&record, out);
    if (stores_take_waited() && index < waits) waits = index;
    bool is_done = status == MS_DONE && !out_is_misused(out);
    if (is_done && index < waits) {
      stores_keep();
      continue;
    }
    out_undo(out);
    stores_undo();
    if (index < waits) fail((uint32_t)index, status == MS_WAIT ? "it waits for nothing" : "it failed without a reason");
  }
  return waits;
}

static const char *process(const batch *of) {
  size_t from = 0;
  for (size_t rounds = 0; from < of->count; rounds++) {
    stores_begin(rounds < ROUNDS_MAX ? COLLECTING : AT_ONCE);
    from = run(of, from);
    const char *why = stores_catch_up();
    if (why) return why;
  }
  return stores_write();
}

const char *core_process(const batch *of, outcome *came) {
  failures.length = reasons.length = told.length = 0;
  out_reset(the_out());
  const char *why = process(of);
  stores_forget();
  if (why) return why;
  const failed *all = (const failed *)failures.at;
  came->failures_count = failures.length / sizeof *all;
  for (size_t at = 0; at < came->failures_count; at++) {
    failure added = {all[at].origin, {reasons.at + all[at].at, all[at].length}};
    buffer_add(&told, &added, sizeof added);
  }
  came->failures = (failure *)told.at;
  came->outputs_count = out_outputs(the_out(), of, &came->outputs);
  return NULL;
}

/* What becomes of records, port by port. A column holds what was set, with the rows it stands in; what is unset inherits, and is filled in when
 * the batch is done. */

#include "out.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Strings that were set, and the rows that they stand in. */
typedef struct {
  buffer rows;
  column strings;
} cells;

typedef struct {
  uint32_t row;
  int64_t millis;
} stamp;

struct ms_emitted {
  const char *name;
  buffer origins;
  cells keys, values;
  /* Of stamps. */
  buffer stamps;
  /* Rows whose headers are the plugin's, and these: the row of each, ascending, with name and value. */
  buffer own_headers, owners;
  column names, header_values;
  /* Where the record being processed has begun. */
  size_t mark;
  /* What is filled in. */
  column whole_keys, whole_values, whole_names, whole_header_values;
  buffer whole_timestamps, whole_owners;
};

struct ms_out {
  ms_emitted **ports;
  size_t ports_count;
  uint32_t origin;
  buffer reason;
  bool has_reason, is_misused;
  output *outputs;
};

ms_out *the_out(void) {
  static ms_out out;
  return &out;
}

static size_t rows(const buffer *of) { return of->length / sizeof(uint32_t); }

static uint32_t row_at(const buffer *of, size_t index) { return ((const uint32_t *)of->at)[index]; }

static bool ends_with(const buffer *of, uint32_t row) { return of->length && row_at(of, rows(of) - 1) == row; }

static void truncate_rows(buffer *of, size_t length) {
  while (of->length && row_at(of, rows(of) - 1) >= length) of->length -= sizeof(uint32_t);
}

static void set(cells *of, uint32_t row, ms_bytes string) {
  if (ends_with(&of->rows, row)) {
    column_truncate(&of->strings, rows(&of->rows) - 1);
  } else {
    buffer_add(&of->rows, &row, sizeof row);
  }
  column_add(&of->strings, string);
}

static void truncate_cells(cells *of, size_t length) {
  truncate_rows(&of->rows, length);
  column_truncate(&of->strings, rows(&of->rows));
}

static void truncate_port(ms_emitted *port, size_t length) {
  if (rows(&port->origins) <= length) return;
  port->origins.length = length * sizeof(uint32_t);
  truncate_cells(&port->keys, length);
  truncate_cells(&port->values, length);
  const stamp *stamps = (const stamp *)port->stamps.at;
  while (port->stamps.length && stamps[port->stamps.length / sizeof(stamp) - 1].row >= length) port->stamps.length -= sizeof(stamp);
  truncate_rows(&port->own_headers, length);
  truncate_rows(&port->owners, length);
  column_truncate(&port->names, rows(&port->owners));
  column_truncate(&port->header_values, rows(&port->owners));
}

void out_reset(ms_out *out) {
  for (size_t at = 0; at < out->ports_count; at++) truncate_port(out->ports[at], 0);
}

void out_begin(ms_out *out, uint32_t origin) {
  out->origin = origin;
  out->has_reason = out->is_misused = false;
  for (size_t at = 0; at < out->ports_count; at++) out->ports[at]->mark = rows(&out->ports[at]->origins);
}

void out_undo(ms_out *out) {
  for (size_t at = 0; at < out->ports_count; at++) truncate_port(out->ports[at], out->ports[at]->mark);
}

ms_bytes out_reason(const ms_out *out) {
  return out->has_reason ? (ms_bytes){out->reason.at, out->reason.length} : MS_NULL;
}

bool out_is_misused(const ms_out *out) { return out->is_misused; }

static bool is_known(const char *name) {
  if (!*name) return true;
  for (const char *const *port = ms_plugin.ports; port && *port; port++) {
    if (strcmp(*port, name) == 0) return true;
  }
  return false;
}

static ms_emitted *port_of(ms_out *out, const char *name) {
  for (size_t at = 0; at < out->ports_count; at++) {
    if (strcmp(out->ports[at]->name, name) == 0) return out->ports[at];
  }
  ms_emitted *port = calloc(1, sizeof *port);
  char *own = malloc(strlen(name) + 1);
  ms_emitted **ports = realloc(out->ports, (out->ports_count + 1) * sizeof *ports);
  if (!port || !own || !ports) abort();
  port->name = strcpy(own, name);
  out->ports = ports;
  return out->ports[out->ports_count++] = port;
}

ms_emitted *ms_emit(ms_out *out, const char *port) {
  const char *name = port ? port : "";
  if (!is_known(name)) {
    ms_fail(out, "port \"%s\" is none of ms_plugin.ports", name);
    out->is_misused = true;
    name = "";
  }
  ms_emitted *emitted = port_of(out, name);
  buffer_add(&emitted->origins, &out->origin, sizeof out->origin);
  return emitted;
}

static uint32_t last(const ms_emitted *emitted) { return (uint32_t)rows(&emitted->origins) - 1; }

void ms_set_key(ms_emitted *emitted, ms_bytes key) { set(&emitted->keys, last(emitted), key); }

void ms_set_value(ms_emitted *emitted, ms_bytes value) { set(&emitted->values, last(emitted), value); }

void ms_set_timestamp(ms_emitted *emitted, int64_t millis) {
  stamp set = {last(emitted), millis};
  size_t count = emitted->stamps.length / sizeof set;
  if (count && ((stamp *)emitted->stamps.at)[count - 1].row == set.row) emitted->stamps.length -= sizeof set;
  buffer_add(&emitted->stamps, &set, sizeof set);
}

/* A record whose headers weren't seen couldn't keep them beside one whose headers were set. */
static bool may_set_headers(ms_bytes name) {
  const char *why = !ms_plugin.headers ? "headers are set, and ms_plugin.headers doesn't ask for them"
                    : !is_utf8(name)   ? "a header's name isn't UTF-8"
                                       : NULL;
  if (!why) return true;
  ms_fail(the_out(), "%s", why);
  the_out()->is_misused = true;
  return false;
}

void ms_clear_headers(ms_emitted *emitted) {
  if (!may_set_headers(MS_NULL)) return;
  uint32_t row = last(emitted);
  truncate_rows(&emitted->owners, row);
  column_truncate(&emitted->names, rows(&emitted->owners));
  column_truncate(&emitted->header_values, rows(&emitted->owners));
  if (!ends_with(&emitted->own_headers, row)) buffer_add(&emitted->own_headers, &row, sizeof row);
}

void ms_add_header(ms_emitted *emitted, ms_bytes name, ms_bytes value) {
  if (!may_set_headers(name)) return;
  uint32_t row = last(emitted);
  if (!ends_with(&emitted->own_headers, row)) buffer_add(&emitted->own_headers, &row, sizeof row);
  buffer_add(&emitted->owners, &row, sizeof row);
  column_add(&emitted->names, name.at ? name : ms_text(""));
  column_add(&emitted->header_values, value);
}

static void add_number(buffer *to, long long number) {
  char digits[24];
  size_t at = sizeof digits;
  unsigned long long left = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
  do digits[--at] = (char)('0' + left % 10);
  while (left /= 10);
  if (number < 0) digits[--at] = '-';
  buffer_add(to, digits + at, sizeof digits - at);
}

ms_status ms_fail(ms_out *out, const char *format, ...) {
  out->reason.length = 0;
  out->has_reason = true;
  va_list arguments;
  va_start(arguments, format);
  for (const char *at = format; *at; at++) {
    const char *plain = at;
    while (*at && *at != '%') at++;
    buffer_add(&out->reason, plain, (size_t)(at - plain));
    if (!*at) break;
    at++;
    if (*at == 's') {
      const char *text = va_arg(arguments, const char *);
      buffer_add(&out->reason, text, strlen(text));
    } else if (*at == 'd') {
      add_number(&out->reason, va_arg(arguments, int));
    } else if (at[0] == 'z' && at[1] == 'u') {
      add_number(&out->reason, (long long)va_arg(arguments, size_t));
      at++;
    } else if (strncmp(at, "lld", 3) == 0) {
      add_number(&out->reason, va_arg(arguments, long long));
      at += 2;
    } else if (*at == '%') {
      buffer_add(&out->reason, "%", 1);
    } else {
      break;
    }
  }
  va_end(arguments);
  return MS_FAILED;
}

/* All rows of a column of which some were set. */
static strings whole(const cells *of, column *to, const ms_emitted *port, const strings *inherited) {
  strings given = column_strings(&of->strings);
  size_t all = rows(&port->origins), next = 0;
  if (given.count == all) return given;
  column_truncate(to, 0);
  for (size_t row = 0; row < all; row++) {
    bool is_set = next < given.count && row_at(&of->rows, next) == row;
    column_add(to, is_set ? strings_get(&given, next++) : strings_get(inherited, row_at(&port->origins, row)));
  }
  return column_strings(to);
}

static const int64_t *whole_timestamps(ms_emitted *port, const batch *of) {
  port->whole_timestamps.length = 0;
  for (size_t row = 0; row < rows(&port->origins); row++) {
    buffer_add(&port->whole_timestamps, &of->timestamps[row_at(&port->origins, row)], sizeof(int64_t));
  }
  int64_t *all = (int64_t *)port->whole_timestamps.at;
  const stamp *stamps = (const stamp *)port->stamps.at;
  for (size_t at = 0; at < port->stamps.length / sizeof(stamp); at++) all[stamps[at].row] = stamps[at].millis;
  return all;
}

static void add_header(ms_emitted *port, uint32_t row, ms_bytes name, ms_bytes value) {
  buffer_add(&port->whole_owners, &row, sizeof row);
  column_add(&port->whole_names, name);
  column_add(&port->whole_header_values, value);
}

static header_rows whole_headers(ms_emitted *port, const batch *of) {
  port->whole_owners.length = 0;
  column_truncate(&port->whole_names, 0);
  column_truncate(&port->whole_header_values, 0);
  strings names = column_strings(&port->names), values = column_strings(&port->header_values);
  size_t own = 0, next = 0;
  for (uint32_t row = 0; row < rows(&port->origins); row++) {
    if (own < rows(&port->own_headers) && row_at(&port->own_headers, own) == row) {
      own++;
      for (; next < rows(&port->owners) && row_at(&port->owners, next) == row; next++) {
        add_header(port, row, strings_get(&names, next), strings_get(&values, next));
      }
      continue;
    }
    uint32_t origin = row_at(&port->origins, row);
    for (size_t at = headers_of(&of->headers, origin); at < of->headers.count && of->headers.owners[at] == origin; at++) {
      add_header(port, row, strings_get(&of->headers.names, at), strings_get(&of->headers.values, at));
    }
  }
  return (header_rows){
      .owners = (const uint32_t *)port->whole_owners.at,
      .count = rows(&port->whole_owners),
      .names = column_strings(&port->whole_names),
      .values = column_strings(&port->whole_header_values),
  };
}

size_t out_outputs(ms_out *out, const batch *of, output **outputs) {
  output *all = realloc(out->outputs, (out->ports_count + 1) * sizeof *all);
  if (!all) abort();
  size_t count = 0;
  for (size_t at = 0; at < out->ports_count; at++) {
    ms_emitted *port = out->ports[at];
    if (!port->origins.length) continue;
    output filled = {
        .port = port->name,
        .origins = (const uint32_t *)port->origins.at,
        .count = rows(&port->origins),
        .has_keys = port->keys.rows.length,
        .has_values = port->values.rows.length,
        .has_timestamps = port->stamps.length,
        .has_headers = port->own_headers.length,
    };
    if (filled.has_keys) filled.keys = whole(&port->keys, &port->whole_keys, port, &of->keys);
    if (filled.has_values) filled.values = whole(&port->values, &port->whole_values, port, &of->values);
    if (filled.has_timestamps) filled.timestamps = whole_timestamps(port, of);
    if (filled.has_headers) filled.headers = whole_headers(port, of);
    all[count++] = filled;
  }
  *outputs = out->outputs = all;
  return count;
}

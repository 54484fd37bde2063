/* What the parts of the SDK share: columns as they cross the boundary, and what the host is asked for. */
#ifndef MILLSTREAM_CORE_H
#define MILLSTREAM_CORE_H

#include <millstream.h>

/* Memory that grows; what can't be had ends the plugin. */
typedef struct {
  uint8_t *at;
  size_t length, room;
} buffer;

void *buffer_add(buffer *of, const void *bytes, size_t length);
/* Adds text; what isn't UTF-8 is told as such, since nothing else can cross the boundary. */
void buffer_add_text(buffer *of, ms_bytes text);
bool is_utf8(ms_bytes text);
void buffer_free(buffer *of);

/* Byte strings back to back: where each ends, and which are null. */
typedef struct {
  buffer bytes, ends, nulls;
} column;

/* The same to be read, whoever has the memory. */
typedef struct {
  const uint8_t *bytes;
  const uint32_t *ends, *nulls;
  size_t bytes_count, count, nulls_count;
} strings;

void column_add(column *of, ms_bytes string);
void column_truncate(column *of, size_t length);
void column_free(column *of);
strings column_strings(const column *of);
ms_bytes strings_get(const strings *of, size_t index);

typedef struct {
  const uint32_t *owners;
  size_t count;
  strings names, values;
} header_rows;

/* Where the headers of an owner begin. */
size_t headers_of(const header_rows *headers, size_t owner);

typedef struct {
  const ms_bytes *inputs;
  size_t inputs_count;
  const uint32_t *input_of;
  ms_bytes topic;
  uint32_t partition;
  int64_t now;
  const int64_t *offsets, *timestamps;
  size_t count;
  strings keys, values;
  header_rows headers;
} batch;

/* What leaves by one port; what no record has set is not there. */
typedef struct {
  const char *port;
  const uint32_t *origins;
  size_t count;
  bool has_keys, has_values, has_timestamps, has_headers;
  strings keys, values;
  const int64_t *timestamps;
  header_rows headers;
} output;

typedef struct {
  uint32_t origin;
  ms_bytes reason;
} failure;

typedef struct {
  output *outputs;
  size_t outputs_count;
  failure *failures;
  size_t failures_count;
} outcome;

typedef struct {
  const char **lookups, **state;
  size_t lookups_count, state_count;
} needs;

/* Configures the one plugin of this instance. Returns what is wrong, or NULL. What is in `needed` stays until the next call. */
const char *core_configure(ms_bytes config, needs *needed);

/* Returns what is wrong with the batch as a whole, or NULL. What is in `came` stays until the next call. */
const char *core_process(const batch *of, outcome *came);

/* The host's. What it returns stays until `core_process` returns; so does a text that says why something can't be opened. */
const char *host_open_lookup(const char *name, uint32_t *handle);
const char *host_open_state(const char *name, uint32_t *handle);
strings host_look(uint32_t handle, const strings *keys);
strings host_get(uint32_t handle, const strings *keys);
void host_put(uint32_t handle, const strings *keys, const strings *values);
void host_log(ms_level level, ms_bytes message);

#endif

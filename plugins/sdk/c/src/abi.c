/* The component model's canonical ABI, for the contract of wit/millstream.wit alone: where each field lies in memory.
 *
 * Invariant: what the host writes here, and what is returned to it, stays where it is until the call's cabi_post. */

#include "core.h"

#include <stdlib.h>
#include <string.h>

#define IMPORT(interface, name) __attribute__((import_module("millstream:plugin/" interface "@0.1.0"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define TRANSFORM "millstream:plugin/transform@0.1.0#"

/* A list or a string. */
typedef struct {
  const void *at;
  uint32_t count;
} list;

typedef struct {
  list bytes, ends, nulls;
} abi_column;

typedef struct {
  list owners;
  abi_column names, values;
} abi_headers;

typedef struct {
  list inputs, input_of, topic;
  uint32_t partition;
  int64_t now;
  list offsets, timestamps;
  abi_column keys, values;
  abi_headers headers;
} abi_batch;

typedef struct {
  list port, origins;
  uint32_t has_keys;
  abi_column keys;
  uint32_t has_values;
  abi_column values;
  uint32_t has_timestamps;
  list timestamps;
  uint32_t has_headers;
  abi_headers headers;
} abi_output;

typedef struct {
  uint32_t origin;
  list reason;
} abi_failure;

typedef struct {
  uint32_t is_error;
  /* Or the error's text in the place of the first. */
  list outputs, failures;
} abi_outcome;

typedef struct {
  uint32_t is_error;
  /* Or the error's text in the place of the first. */
  list ports, lookups, state;
  uint32_t headers;
} abi_needs;

typedef struct {
  list name, version;
  uint32_t has_schema;
  list schema;
} abi_description;

_Static_assert(sizeof(abi_batch) == 160 && sizeof(abi_output) == 144, "records lie as the contract has them");
_Static_assert(sizeof(abi_outcome) == 20 && sizeof(abi_needs) == 32 && sizeof(abi_description) == 28, "results too");

/* ---- Where the host puts what it passes: pieces that are freed when the call is over. ---- */

static buffer pieces;

void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes) EXPORT("cabi_realloc");

void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes) {
  if (!bytes) return (void *)align;
  void *fresh = malloc(bytes);
  if (!fresh) abort();
  if (old_bytes) memcpy(fresh, old, old_bytes < bytes ? old_bytes : bytes);
  buffer_add(&pieces, &fresh, sizeof fresh);
  return fresh;
}

static void done(void) {
  void **all = (void **)pieces.at;
  for (size_t at = 0; at < pieces.length / sizeof *all; at++) free(all[at]);
  pieces.length = 0;
}

/* Memory for what is returned. */
static void *made(size_t count, size_t bytes) { return cabi_realloc(NULL, 0, sizeof(int64_t), count * bytes); }

/* An empty list is somewhere too, and where a list of it may be. */
static list lowered(const void *at, size_t count) {
  static const int64_t nowhere;
  return (list){count ? at : &nowhere, (uint32_t)count};
}

static list text(const char *of) { return lowered(of, of ? strlen(of) : 0); }

static list texts(const char *const *of, size_t count) {
  list *all = made(count, sizeof *all);
  for (size_t at = 0; at < count; at++) all[at] = text(of[at]);
  return lowered(all, count);
}

static strings lifted(const abi_column *of) {
  return (strings){of->bytes.at, of->ends.at, of->nulls.at, of->bytes.count, of->ends.count, of->nulls.count};
}

static abi_column lowered_column(const strings *of) {
  return (abi_column){
      lowered(of->bytes, of->bytes_count), lowered(of->ends, of->count), lowered(of->nulls, of->nulls_count)};
}

/* ---- What the host calls. ---- */

EXPORT(TRANSFORM "describe") abi_description *export_describe(void) {
  static abi_description described;
  described = (abi_description){.name = text(ms_plugin.name), .version = text(ms_plugin.version)};
  described.has_schema = ms_plugin.config_schema != NULL;
  described.schema = text(ms_plugin.config_schema);
  return &described;
}

EXPORT("cabi_post_" TRANSFORM "describe") void post_describe(abi_description *of) {
  (void)of;
  done();
}

EXPORT(TRANSFORM "configure") abi_needs *export_configure(const uint8_t *config, uint32_t bytes) {
  static abi_needs answer;
  static needs needed;
  answer = (abi_needs){0};
  const char *why = core_configure((ms_bytes){config, bytes}, &needed);
  if (why) {
    answer.is_error = 1;
    answer.ports = text(why);
    return &answer;
  }
  size_t ports = 0;
  while (ms_plugin.ports && ms_plugin.ports[ports]) ports++;
  answer.ports = texts(ms_plugin.ports, ports);
  answer.lookups = texts(needed.lookups, needed.lookups_count);
  answer.state = texts(needed.state, needed.state_count);
  answer.headers = ms_plugin.headers;
  return &answer;
}

EXPORT("cabi_post_" TRANSFORM "configure") void post_configure(abi_needs *of) {
  (void)of;
  done();
}

static abi_output lowered_output(const output *of) {
  abi_output lower = {.port = text(of->port), .origins = lowered(of->origins, of->count)};
  lower.has_keys = of->has_keys;
  if (of->has_keys) lower.keys = lowered_column(&of->keys);
  lower.has_values = of->has_values;
  if (of->has_values) lower.values = lowered_column(&of->values);
  lower.has_timestamps = of->has_timestamps;
  if (of->has_timestamps) lower.timestamps = lowered(of->timestamps, of->count);
  lower.has_headers = of->has_headers;
  if (of->has_headers) {
    lower.headers.owners = lowered(of->headers.owners, of->headers.count);
    lower.headers.names = lowered_column(&of->headers.names);
    lower.headers.values = lowered_column(&of->headers.values);
  }
  return lower;
}

EXPORT(TRANSFORM "process") abi_outcome *export_process(const abi_batch *given) {
  static abi_outcome answer;
  answer = (abi_outcome){0};
  ms_bytes *inputs = made(given->inputs.count, sizeof *inputs);
  for (uint32_t at = 0; at < given->inputs.count; at++) {
    const list *input = (const list *)given->inputs.at + at;
    inputs[at] = (ms_bytes){input->at, input->count};
  }
  batch of = {
      .inputs = inputs,
      .inputs_count = given->inputs.count,
      .input_of = given->input_of.at,
      .topic = {given->topic.at, given->topic.count},
      .partition = given->partition,
      .now = given->now,
      .offsets = given->offsets.at,
      .timestamps = given->timestamps.at,
      .count = given->offsets.count,
      .keys = lifted(&given->keys),
      .values = lifted(&given->values),
      .headers = {given->headers.owners.at, given->headers.owners.count, lifted(&given->headers.names), lifted(&given->headers.values)},
  };
  outcome came = {0};
  const char *why = core_process(&of, &came);
  if (why) {
    answer.is_error = 1;
    answer.outputs = text(why);
    return &answer;
  }
  abi_output *outputs = made(came.outputs_count, sizeof *outputs);
  for (size_t at = 0; at < came.outputs_count; at++) outputs[at] = lowered_output(&came.outputs[at]);
  abi_failure *failures = made(came.failures_count, sizeof *failures);
  for (size_t at = 0; at < came.failures_count; at++) {
    const failure *failed = &came.failures[at];
    failures[at] = (abi_failure){failed->origin, lowered(failed->reason.at, failed->reason.length)};
  }
  answer.outputs = lowered(outputs, came.outputs_count);
  answer.failures = lowered(failures, came.failures_count);
  return &answer;
}

EXPORT("cabi_post_" TRANSFORM "process") void post_process(abi_outcome *of) {
  (void)of;
  done();
}

/* ---- What is asked of the host. ---- */

/* A handle, or why there is none. */
typedef struct {
  uint32_t is_error;
  union {
    uint32_t handle;
    list why;
  };
} abi_opened;

#define COLUMN const void *, uint32_t, const void *, uint32_t, const void *, uint32_t
#define COLUMN_OF(of) (of)->bytes, (of)->bytes_count, (of)->ends, (of)->count, (of)->nulls, (of)->nulls_count

IMPORT("lookups", "open") void import_open_lookup(const char *name, uint32_t bytes, abi_opened *answer);
IMPORT("lookups", "[method]lookup.get") void import_look(uint32_t handle, COLUMN, abi_column *answer);
IMPORT("state", "open") void import_open_state(const char *name, uint32_t bytes, abi_opened *answer);
IMPORT("state", "[method]store.get") void import_get(uint32_t handle, COLUMN, abi_column *answer);
IMPORT("state", "[method]store.put") void import_put(uint32_t handle, COLUMN, COLUMN);
IMPORT("log", "log") void import_log(uint32_t level, const void *message, uint32_t bytes);

static const char *opened(const abi_opened *answer, uint32_t *handle) {
  if (!(answer->is_error & 0xff)) {
    *handle = answer->handle;
    return NULL;
  }
  char *why = made(answer->why.count + 1, 1);
  memcpy(why, answer->why.at, answer->why.count);
  why[answer->why.count] = 0;
  return why;
}

const char *host_open_lookup(const char *name, uint32_t *handle) {
  abi_opened answer = {0};
  import_open_lookup(name, (uint32_t)strlen(name), &answer);
  return opened(&answer, handle);
}

const char *host_open_state(const char *name, uint32_t *handle) {
  abi_opened answer = {0};
  import_open_state(name, (uint32_t)strlen(name), &answer);
  return opened(&answer, handle);
}

strings host_look(uint32_t handle, const strings *keys) {
  abi_column answer;
  import_look(handle, COLUMN_OF(keys), &answer);
  return lifted(&answer);
}

strings host_get(uint32_t handle, const strings *keys) {
  abi_column answer;
  import_get(handle, COLUMN_OF(keys), &answer);
  return lifted(&answer);
}

void host_put(uint32_t handle, const strings *keys, const strings *values) {
  import_put(handle, COLUMN_OF(keys), COLUMN_OF(values));
}

void host_log(ms_level level, ms_bytes message) { import_log((uint32_t)level, message.at, (uint32_t)message.length); }

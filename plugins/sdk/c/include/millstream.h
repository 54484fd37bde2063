/* Millstream plugins in C: two functions say how the plugin is configured, and what becomes of a record. It runs as WebAssembly in a
 * sandbox.
 *
 *     #include <millstream.h>
 *
 *     const ms_about ms_plugin = {.name = "keyed", .version = "1.0.0"};
 *
 *     const char *ms_configure(ms_bytes config) { return NULL; }
 *
 *     ms_status ms_process(const ms_record *record, ms_out *out) {
 *       if (ms_key(record).at) ms_emit(out, NULL);
 *       return MS_DONE;
 *     }
 *
 * Bytes that a function here returns are valid until `ms_process` returns. Bytes that it is given are copied. */
#ifndef MILLSTREAM_H
#define MILLSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A byte string. Where `at` is NULL it is null, which differs from an empty one. */
typedef struct {
  const uint8_t *at;
  size_t length;
} ms_bytes;

#define MS_NULL ((ms_bytes){NULL, 0})

/* The bytes of a C string. */
ms_bytes ms_text(const char *text);

bool ms_equal(ms_bytes one, ms_bytes other);

typedef enum {
  /* What was emitted and put for the record stands. */
  MS_DONE,
  /* The record fails, and what was emitted and put for it is undone. `ms_fail` says why. */
  MS_FAILED,
  /* A key that was asked for isn't known yet: return this, and the record is processed again, from the start, when it is; so are those behind
   * it. What was emitted and put is undone; what was changed elsewhere is not, so change nothing else. Such a try sees state without what
   * the records before it will change. */
  MS_WAIT,
} ms_status;

/* ---- What a plugin is: to be defined by it. ---- */

typedef struct {
  const char *name, *version;
  /* JSON Schema of the configuration; NULL where there is none. */
  const char *config_schema;
  /* Output ports beside the default one, and NULL; or NULL where there are none. */
  const char *const *ports;
  /* Whether records are to carry their headers. Who sets headers needs it too. */
  bool headers;
} ms_about;

extern const ms_about ms_plugin;

/* Called once for each instance, before any record, with the step's `config` table as a JSON object, which is gone when this returns. Opens what tables and state the plugin
 * uses. Returns NULL, or what is wrong, which is shown to whoever starts the pipeline. */
const char *ms_configure(ms_bytes config);

/* Says what becomes of a record. The records of a batch come one after the other, in their order. An instance may be thrown away between any
 * two batches: what has to last goes into state. */
typedef struct ms_record ms_record;
typedef struct ms_out ms_out;
ms_status ms_process(const ms_record *record, ms_out *out);

/* ---- The record being processed. ---- */

ms_bytes ms_key(const ms_record *record);
ms_bytes ms_value(const ms_record *record);
/* Milliseconds since 1970-01-01 UTC; -1 where the record has none. */
int64_t ms_timestamp(const ms_record *record);
/* The time of day in milliseconds since 1970-01-01 UTC: the same for all records of a batch, and when it is tried again. */
int64_t ms_now(const ms_record *record);
/* Of the source record. */
ms_bytes ms_topic(const ms_record *record);
uint32_t ms_partition(const ms_record *record);
int64_t ms_offset(const ms_record *record);
/* Which of the step's inputs the record came by, as the pipeline file names it. */
ms_bytes ms_input(const ms_record *record);
/* How many headers there are; none unless the plugin asks for headers. */
size_t ms_header_count(const ms_record *record);
void ms_header_at(const ms_record *record, size_t index, ms_bytes *name, ms_bytes *value);
/* The value of the last header of that name. Returns whether there is one. */
bool ms_header(const ms_record *record, ms_bytes name, ms_bytes *value);

/* ---- What becomes of it. What is not emitted is dropped. ---- */

typedef struct ms_emitted ms_emitted;

/* Begins an output record, on a port that the plugin names, or on the default one for NULL. It is the record being processed, but for what is
 * set, and may be set until the next one is begun. A port that the plugin doesn't name fails the record. */
ms_emitted *ms_emit(ms_out *out, const char *port);
void ms_set_key(ms_emitted *emitted, ms_bytes key);
void ms_set_value(ms_emitted *emitted, ms_bytes value);
void ms_set_timestamp(ms_emitted *emitted, int64_t millis);
/* All of them are the plugin's from the first call on. */
void ms_clear_headers(ms_emitted *emitted);
void ms_add_header(ms_emitted *emitted, ms_bytes name, ms_bytes value);

/* Fails the record, with a reason as by printf, which knows %s, %d, %zu, %lld and %%. To be returned. (The C library's own would need more of
 * the world than a plugin has.) */
ms_status ms_fail(ms_out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- Tables and state. To be opened in `ms_configure`, by the names that the pipeline file has for the step: they join its needs. ---- */

typedef struct ms_lookup ms_lookup;
typedef struct ms_state ms_state;

ms_lookup *ms_open_lookup(const char *name);
ms_state *ms_open_state(const char *name);

/* The value of a key, null where there is none. MS_WAIT where it isn't known yet: the keys of a whole batch are fetched with one call. A null key
 * has no value. */
ms_status ms_look(ms_lookup *lookup, ms_bytes key, ms_bytes *found);
/* The same of state. It sees what this record and those before it have put. */
ms_status ms_get(ms_state *state, ms_bytes key, ms_bytes *found);
/* Sets the value of a key, or removes it where that is null. A null key is left alone. It is written at the batch's end, even if it is what the
 * key had: to put says that the entry is alive. */
void ms_put(ms_state *state, ms_bytes key, ms_bytes value);

/* ---- The operator's log, where lines are marked with the step. ---- */

typedef enum { MS_TRACE, MS_DEBUG, MS_INFO, MS_WARN, MS_ERROR } ms_level;
void ms_log(ms_level level, ms_bytes message);

#ifdef __cplusplus
}
#endif
#endif

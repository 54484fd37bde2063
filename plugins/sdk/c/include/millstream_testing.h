/* Runs the plugin that a program is linked with in an ordinary test, without WebAssembly and without a host: link `harness.c` in place of
 * `abi.c`. It stands in for the host: it fills in what output records inherit, and holds what tables and state have.
 *
 * There is one plugin in a program, and so one harness. What it returns is valid until the next call of `ms_test_process`. */
#ifndef MILLSTREAM_TESTING_H
#define MILLSTREAM_TESTING_H

#include <millstream.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  ms_bytes name, value;
} ms_header_pair;

/* A record for the plugin to process. */
typedef struct {
  ms_bytes key, value;
  /* Milliseconds; -1 for none. */
  int64_t timestamp;
  const ms_header_pair *headers;
  size_t headers_count;
  /* The step's input that it comes by; null for "input". */
  ms_bytes input;
} ms_test_input;

/* A record that came out, with all that it inherits. */
typedef struct {
  const char *port;
  size_t origin;
  ms_bytes key, value;
  int64_t timestamp;
  const ms_header_pair *headers;
  size_t headers_count;
} ms_test_output;

typedef struct {
  size_t origin;
  ms_bytes reason;
} ms_test_failure;

typedef struct {
  /* Why the batch as a whole failed, or NULL. What was put is undone then. */
  const char *why;
  const ms_test_output *outputs;
  size_t outputs_count;
  const ms_test_failure *failures;
  size_t failures_count;
  /* How many calls into the host fetched keys, and how many wrote them. */
  size_t fetches, puts;
} ms_processed;

/* Forgets all tables, state and needs, for another test. */
void ms_test_reset(void);

/* Gives a table that the pipeline file would grant, or one more entry of it. */
void ms_test_grant(const char *lookup, ms_bytes key, ms_bytes value);

/* Configures the plugin. Returns what is wrong, or NULL: that it needs a lookup that was not granted is wrong too. All state that it needs is there
 * then, and empty. */
const char *ms_test_configure(const char *config);

/* Sets what a state has for a key; null removes it. */
void ms_test_set_state(const char *state, ms_bytes key, ms_bytes value);

/* What a state has for a key, and for how many. */
ms_bytes ms_test_state(const char *state, ms_bytes key);
size_t ms_test_state_count(const char *state);

ms_processed ms_test_process(const ms_test_input *records, size_t count);

#ifdef __cplusplus
}
#endif
#endif

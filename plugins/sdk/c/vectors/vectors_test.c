/* The vectors of plugins/sdk/vectors, without WebAssembly. */

#include <millstream_testing.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS_MAX 64
#define HEADERS_MAX 8

static int wrong;

#define CHECK(is, what)                                                          \
  do {                                                                           \
    if (!(is)) wrong++, fprintf(stderr, "%s, record %zu: %s\n", name, at, what); \
  } while (0)

/* A string of the vectors: text, null, or a text that is repeated. It is never freed. */
static ms_bytes text(const json_t *given) {
  if (!json_is_object(given)) return json_is_string(given) ? (ms_bytes){(const uint8_t *)json_string_value(given), json_string_length(given)} : MS_NULL;
  const char *before = json_string_value(json_object_get(given, "before")), *part = json_string_value(json_object_get(given, "repeat"));
  size_t times = (size_t)json_integer_value(json_object_get(given, "times"));
  char *all = malloc(strlen(before) + times * strlen(part) + 1);
  char *end = all + sprintf(all, "%s", before);
  for (size_t at = 0; at < times; at++) end += sprintf(end, "%s", part);
  return (ms_bytes){(uint8_t *)all, (size_t)(end - all)};
}

static ms_test_input input(const json_t *record) {
  ms_test_input made = {text(json_object_get(record, "key")), text(json_object_get(record, "value")), 1000, NULL, 0, MS_NULL};
  const json_t *timestamp = json_object_get(record, "timestamp"), *headers = json_object_get(record, "headers");
  if (timestamp) made.timestamp = json_is_null(timestamp) ? -1 : json_integer_value(timestamp);
  ms_header_pair *pairs = calloc(HEADERS_MAX, sizeof *pairs);
  for (; made.headers_count < json_array_size(headers); made.headers_count++) {
    const json_t *pair = json_array_get(headers, made.headers_count);
    pairs[made.headers_count] = (ms_header_pair){text(json_array_get(pair, 0)), text(json_array_get(pair, 1))};
  }
  made.headers = pairs;
  return made;
}

static bool same_value(const ms_test_output *found, const json_t *record, ms_bytes expected) {
  json_t *json = json_object_get(record, "json");
  if (!json) return ms_equal(found->value, expected);
  json_t *parsed = json_loadb((const char *)found->value.at, found->value.length, JSON_DECODE_ANY, NULL);
  return json_equal(parsed, json);
}

static void check_output(const char *name, size_t at, const ms_test_output *found, const json_t *record) {
  ms_test_input expected = input(record);
  const char *port = json_string_value(json_object_get(record, "port"));
  CHECK(strcmp(found->port, port ? port : "") == 0, found->port);
  CHECK(found->origin == (size_t)json_integer_value(json_object_get(record, "origin")), "its origin");
  CHECK(ms_equal(found->key, expected.key), "its key");
  CHECK(same_value(found, record, expected.value), "its value");
  CHECK(found->timestamp == expected.timestamp, "its timestamp");
  CHECK(found->headers_count == expected.headers_count, "how many headers");
  for (size_t each = 0; each < found->headers_count && each < expected.headers_count; each++) {
    CHECK(ms_equal(found->headers[each].name, expected.headers[each].name), "a header's name");
    CHECK(ms_equal(found->headers[each].value, expected.headers[each].value), "a header's value");
  }
}

static bool contains(ms_bytes text, const char *words) {
  size_t length = strlen(words);
  for (size_t at = 0; at + length <= text.length; at++) {
    if (memcmp(text.at + at, words, length) == 0) return true;
  }
  return false;
}

static void check_case(const json_t *suite, json_t *vector) {
  const char *name = json_string_value(json_object_get(vector, "name")), *key;
  size_t at = 0;
  json_t *value;
  ms_test_reset();
  json_object_foreach(json_object_get(json_object_get(suite, "lookups"), "words"), key, value) ms_test_grant("words", ms_text(key), text(value));
  const char *why = ms_test_configure(json_dumps(json_object_get(suite, "config"), JSON_COMPACT));
  CHECK(!why, why);
  json_object_foreach(json_object_get(vector, "before"), key, value) ms_test_set_state("totals", ms_text(key), text(value));
  ms_test_input records[RECORDS_MAX];
  size_t count = json_array_size(json_object_get(vector, "records"));
  for (at = 0; at < count; at++) records[at] = input(json_array_get(json_object_get(vector, "records"), at));
  ms_processed processed = ms_test_process(records, count);
  CHECK(!processed.why, processed.why);
  const json_t *outputs = json_object_get(vector, "outputs"), *failures = json_object_get(vector, "failures");
  CHECK(processed.outputs_count == json_array_size(outputs), "how many outputs");
  /* By the default port last. */
  size_t checked = 0;
  for (int is_default = 0; is_default < 2; is_default++) {
    for (size_t each = 0; each < processed.outputs_count; each++) {
      const ms_test_output *found = &processed.outputs[each];
      if ((*found->port == 0) == is_default) check_output(name, each, found, json_array_get(outputs, checked++));
    }
  }
  CHECK(processed.failures_count == json_array_size(failures), "how many failures");
  for (at = 0; at < processed.failures_count && at < json_array_size(failures); at++) {
    const json_t *failure = json_array_get(failures, at);
    CHECK(processed.failures[at].origin == (size_t)json_integer_value(json_object_get(failure, "origin")), "a failure's origin");
    CHECK(contains(processed.failures[at].reason, json_string_value(json_object_get(failure, "reason"))), "its reason");
  }
  json_t *after = json_object_get(vector, "after");
  CHECK(ms_test_state_count("totals") == json_object_size(after), "how much state");
  json_object_foreach(after, key, value) CHECK(ms_equal(ms_test_state("totals", ms_text(key)), text(value)), key);
}

int main(int count, char **arguments) {
  json_error_t error;
  json_t *suite = json_load_file(count > 1 ? arguments[1] : "vectors.json", JSON_ALLOW_NUL, &error), *vector;
  size_t at;
  if (!suite) return fprintf(stderr, "%s: %s\n", error.source, error.text), 2;
  json_array_foreach(json_object_get(suite, "cases"), at, vector) check_case(suite, vector);
  printf("%zu vectors, %d wrong\n", json_array_size(json_object_get(suite, "cases")), wrong);
  return wrong != 0;
}

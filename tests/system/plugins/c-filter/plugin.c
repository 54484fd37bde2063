// A plugin in C, from the WIT file and what wit-bindgen makes of it, without an SDK: drops records whose JSON object says an
// "age" below the configured "min_age", and fails those that are no object with an age. It proves that the contract alone is
// enough, so it must stay plain: no library beyond memory and string functions, none of them one that needs WASI.
//
// Who frees what: arguments are ours and freed here; results are freed by the bindings after the host has read them, strings
// and lists by free(), and so they all come from malloc(), or are empty.

#include <stdlib.h>
#include <string.h>

#include "plugin.h"

typedef exports_millstream_plugin_transform_description_t description_t;
typedef exports_millstream_plugin_transform_needs_t needs_t;
typedef exports_millstream_plugin_transform_batch_t batch_t;
typedef exports_millstream_plugin_transform_outcome_t outcome_t;
typedef millstream_plugin_records_output_t output_t;
typedef millstream_plugin_records_failure_t failure_t;

enum { DEPTH_MAX = 64 };

static uint64_t min_age = 0;

// --- JSON: a cursor over bytes that end at `end`. Each function takes one thing and says whether it was there. ---

typedef struct {
  const uint8_t *at;
  const uint8_t *end;
} cursor_t;

static void take_space(cursor_t *cursor) {
  while (cursor->at < cursor->end &&
         (*cursor->at == ' ' || *cursor->at == '\t' || *cursor->at == '\n' || *cursor->at == '\r'))
    cursor->at++;
}

static bool take(cursor_t *cursor, uint8_t byte) {
  take_space(cursor);
  if (cursor->at == cursor->end || *cursor->at != byte) return false;
  cursor->at++;
  return true;
}

static bool take_word(cursor_t *cursor, const char *word) {
  size_t length = strlen(word);
  if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0) return false;
  cursor->at += length;
  return true;
}

// A string with its quotes. `content` gets what lies between them, escapes as they stand.
static bool take_string(cursor_t *cursor, cursor_t *content) {
  if (!take(cursor, '"')) return false;
  content->at = cursor->at;
  while (cursor->at < cursor->end && *cursor->at != '"') {
    if (*cursor->at < ' ') return false;
    if (*cursor->at == '\\' && ++cursor->at == cursor->end) return false;
    cursor->at++;
  }
  content->end = cursor->at;
  return take(cursor, '"');
}

static size_t take_digits(cursor_t *cursor) {
  const uint8_t *start = cursor->at;
  while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9') cursor->at++;
  return (size_t)(cursor->at - start);
}

static bool take_number(cursor_t *cursor) {
  take_word(cursor, "-");
  if (!take_word(cursor, "0") && take_digits(cursor) == 0) return false;
  if (take_word(cursor, ".") && take_digits(cursor) == 0) return false;
  if (take_word(cursor, "e") || take_word(cursor, "E")) {
    if (!take_word(cursor, "+")) take_word(cursor, "-");
    return take_digits(cursor) > 0;
  }
  return true;
}

// A number as an age: a whole one, and not below zero.
static bool take_age(cursor_t *cursor, uint64_t *age) {
  take_space(cursor);
  const uint8_t *start = cursor->at;
  if (!take_number(cursor)) return false;
  *age = 0;
  for (const uint8_t *digit = start; digit < cursor->at; digit++) {
    if (*digit < '0' || *digit > '9' || *age > (UINT64_MAX - 9) / 10) return false;
    *age = *age * 10 + (*digit - '0');
  }
  return true;
}

static bool take_value(cursor_t *cursor, int depth);

static bool take_object(cursor_t *cursor, int depth, const char *wanted, uint64_t *number, bool *found);

static bool take_array(cursor_t *cursor, int depth) {
  if (!take(cursor, '[')) return false;
  if (take(cursor, ']')) return true;
  do {
    if (!take_value(cursor, depth + 1)) return false;
  } while (take(cursor, ','));
  return take(cursor, ']');
}

static bool take_value(cursor_t *cursor, int depth) {
  cursor_t ignored;
  take_space(cursor);
  if (cursor->at == cursor->end || depth > DEPTH_MAX) return false;
  switch (*cursor->at) {
    case '"': return take_string(cursor, &ignored);
    case '{': return take_object(cursor, depth, NULL, NULL, NULL);
    case '[': return take_array(cursor, depth);
    case 't': return take_word(cursor, "true");
    case 'f': return take_word(cursor, "false");
    case 'n': return take_word(cursor, "null");
    default: return take_number(cursor);
  }
}

// An object. Where a member is `wanted`, it must be a number that can be an age, and `found` says whether there was one.
static bool take_object(cursor_t *cursor, int depth, const char *wanted, uint64_t *number, bool *found) {
  if (!take(cursor, '{')) return false;
  if (take(cursor, '}')) return true;
  do {
    cursor_t name;
    if (!take_string(cursor, &name) || !take(cursor, ':')) return false;
    size_t length = (size_t)(name.end - name.at);
    if (wanted && length == strlen(wanted) && memcmp(name.at, wanted, length) == 0) {
      if (!take_age(cursor, number)) return false;
      *found = true;
    } else if (!take_value(cursor, depth + 1)) {
      return false;
    }
  } while (take(cursor, ','));
  return take(cursor, '}');
}

// All of `bytes` as an object whose member `wanted`, if it has one, is a whole number.
static bool read_object(const uint8_t *bytes, size_t length, const char *wanted, uint64_t *number, bool *found) {
  cursor_t cursor = {bytes, bytes + length};
  *found = false;
  if (!take_object(&cursor, 0, wanted, number, found)) return false;
  take_space(&cursor);
  return cursor.at == cursor.end;
}

// --- The contract ---

// The bindings abort where they get no memory; so do we.
static void *allocate(size_t count, size_t size) {
  if (count == 0) return NULL;
  void *memory = calloc(count, size);
  if (memory == NULL) abort();
  return memory;
}

void exports_millstream_plugin_transform_describe(description_t *ret) {
  memset(ret, 0, sizeof *ret);
  plugin_string_dup(&ret->name, "c-filter");
  plugin_string_dup(&ret->version, "0.1.0");
}

bool exports_millstream_plugin_transform_configure(plugin_string_t *config, needs_t *ret, plugin_string_t *err) {
  bool found;
  bool valid = read_object(config->ptr, config->len, "min_age", &min_age, &found);
  plugin_string_free(config);
  if (!valid) {
    plugin_string_dup(err, "config.min_age: expected a whole number, 0 or more");
    return false;
  }
  if (!found) min_age = 0;
  memset(ret, 0, sizeof *ret);  // No ports, no tables, no state, no headers.
  return true;
}

// Why a value fails, or NULL: then `keep` says what becomes of the record.
static const char *judge(const uint8_t *bytes, size_t length, bool is_null, bool *keep) {
  uint64_t age = 0;
  bool found;
  if (is_null) return "the value is null";
  if (!read_object(bytes, length, "age", &age, &found)) return "the value isn't a JSON object whose `age` is a whole number";
  if (!found) return "the value has no `age`";
  *keep = age >= min_age;
  return NULL;
}

bool exports_millstream_plugin_transform_process(batch_t *batch, outcome_t *ret, plugin_string_t *err) {
  (void)err;  // Nothing here concerns the batch as a whole.
  const millstream_plugin_records_column_t *values = &batch->values;
  size_t length = values->ends.len;
  // Both are as long as they can become; what isn't used is freed with the rest.
  plugin_list_u32_t origins = {allocate(length, sizeof(uint32_t)), 0};
  millstream_plugin_records_list_failure_t failures = {allocate(length, sizeof(failure_t)), 0};
  uint32_t start = 0;
  size_t next_null = 0;
  for (size_t i = 0; i < length; i++) {
    uint32_t end = values->ends.ptr[i];
    bool is_null = next_null < values->nulls.len && values->nulls.ptr[next_null] == i;
    next_null += is_null;
    bool keep = false;
    const char *reason = judge(values->bytes.ptr + start, end - start, is_null, &keep);
    start = end;
    if (reason) {
      failure_t *failure = &failures.ptr[failures.len++];
      failure->origin = (uint32_t)i;
      plugin_string_dup(&failure->reason, reason);
    } else if (keep) {
      origins.ptr[origins.len++] = (uint32_t)i;
    }
  }
  exports_millstream_plugin_transform_batch_free(batch);

  memset(ret, 0, sizeof *ret);
  ret->failures = failures;
  // Origins and nothing else: key, value, timestamp and headers are inherited. The bindings free a list by its length, so one
  // that stayed empty has to be freed here.
  if (failures.len == 0) {
    free(failures.ptr);
    ret->failures.ptr = NULL;
  }
  if (origins.len == 0) {
    free(origins.ptr);
    return true;
  }
  ret->outputs.ptr = allocate(1, sizeof(output_t));
  ret->outputs.len = 1;
  ret->outputs.ptr->origins = origins;
  return true;
}

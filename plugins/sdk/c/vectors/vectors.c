/* The plugin that every SDK has in its language: it does what the first word of a record's value says, as plugins/sdk/vectors/README.md has it.
 * JSON it knows as far as the vectors need it. */

#include <millstream.h>

#include <stdlib.h>
#include <string.h>

static const char *const ports[] = {"other", NULL};

const ms_about ms_plugin = {.name = "vectors", .version = "1.0.0", .ports = ports, .headers = true};

static ms_bytes greeting;
static ms_lookup *words;
static ms_state *totals;

/* Where these words stand in a text, at the end of them; or NULL. */
static const uint8_t *behind(ms_bytes text, const char *words) {
  size_t length = strlen(words);
  for (size_t at = 0; at + length <= text.length; at++) {
    if (memcmp(text.at + at, words, length) == 0) return text.at + at + length;
  }
  return NULL;
}

const char *ms_configure(ms_bytes config) {
  const uint8_t *from = behind(config, "\"greeting\":\"");
  const uint8_t *end = from ? memchr(from, '"', (size_t)(config.at + config.length - from)) : NULL;
  if (!end) return "config: \"greeting\" is missing";
  uint8_t *kept = malloc((size_t)(end - from) + 1);
  if (!kept) abort();
  memcpy(kept, from, (size_t)(end - from));
  greeting = (ms_bytes){kept, (size_t)(end - from)};
  words = ms_open_lookup("words");
  totals = ms_open_state("totals");
  return NULL;
}

static bool is(ms_bytes word, const char *name) { return ms_equal(word, ms_text(name)); }

/* Whether it is a whole number, and which. */
static bool number(ms_bytes text, int64_t *found) {
  *found = 0;
  for (size_t at = 0; at < text.length; at++) {
    if (text.at[at] < '0' || text.at[at] > '9') return false;
    *found = *found * 10 + (text.at[at] - '0');
  }
  return text.length > 0;
}

static ms_bytes digits(char *buffer, size_t room, int64_t number) {
  size_t at = room;
  do buffer[--at] = (char)('0' + number % 10);
  while (number /= 10);
  return (ms_bytes){(uint8_t *)buffer + at, room - at};
}

static void set_number(ms_emitted *emitted, int64_t number) {
  char buffer[24];
  ms_set_value(emitted, digits(buffer, sizeof buffer, number));
}

/* Two-byte letters of Latin-1 and Greek, and ASCII. */
static ms_status upper(ms_bytes text, ms_out *out) {
  uint8_t *changed = malloc(text.length + 1);
  if (!changed) abort();
  memcpy(changed, text.at, text.length);
  for (size_t at = 0; at < text.length; at++) {
    uint8_t *one = &changed[at];
    if (*one >= 'a' && *one <= 'z') *one -= 32;
    else if (*one == 0xc3 && at + 1 < text.length && one[1] >= 0xa0) one[1] -= 32;
    else if (*one == 0xcf && at + 1 < text.length && one[1] == 0x89) one[0] = 0xce, one[1] = 0xa9;
  }
  ms_set_value(ms_emit(out, NULL), (ms_bytes){changed, text.length});
  free(changed);
  return MS_DONE;
}

static ms_status repeat(bool is_long, ms_bytes times, ms_out *out) {
  int64_t count;
  if (!number(times, &count)) return ms_fail(out, "not a number");
  if (!is_long) {
    for (int64_t at = 0; at < count; at++) set_number(ms_emit(out, NULL), at);
    return MS_DONE;
  }
  uint8_t *all = malloc((size_t)count + 1);
  if (!all) abort();
  memset(all, 'x', (size_t)count);
  ms_set_value(ms_emit(out, NULL), (ms_bytes){all, (size_t)count});
  free(all);
  return MS_DONE;
}

/* The object begins with its number. */
static ms_status json(ms_bytes object, ms_out *out) {
  const uint8_t *from = behind(object, "{\"n\":");
  size_t length = 0;
  while (from && from + length < object.at + object.length && from[length] >= '0' && from[length] <= '9') length++;
  int64_t found;
  if (!from || !number((ms_bytes){from, length}, &found)) return ms_fail(out, "not the JSON that is expected");
  char buffer[24];
  ms_bytes more = digits(buffer, sizeof buffer, found + 1);
  size_t before = (size_t)(from - object.at), behind = object.length - before - length;
  uint8_t *changed = malloc(before + more.length + behind);
  if (!changed) abort();
  memcpy(changed, object.at, before);
  memcpy(changed + before, more.at, more.length);
  memcpy(changed + before + more.length, from + length, behind);
  ms_set_value(ms_emit(out, NULL), (ms_bytes){changed, before + more.length + behind});
  free(changed);
  return MS_DONE;
}

static ms_status count(ms_bytes word, ms_bytes key, ms_out *out) {
  if (!key.at) return ms_fail(out, "there is no key to count by");
  if (is(word, "forget")) {
    ms_put(totals, key, MS_NULL);
    ms_emit(out, NULL);
    return MS_DONE;
  }
  ms_bytes found;
  if (ms_get(totals, key, &found) == MS_WAIT) return MS_WAIT;
  int64_t total = 0;
  if (found.at && !number(found, &total)) return ms_fail(out, "the state is no number");
  char buffer[24];
  ms_put(totals, key, digits(buffer, sizeof buffer, total + 1));
  set_number(ms_emit(out, NULL), total + 1);
  return is(word, "count") ? MS_DONE : ms_fail(out, "%s in vain", "counted");
}

static ms_status look(bool follows, ms_bytes key, ms_out *out) {
  ms_bytes found;
  if (ms_look(words, key, &found) == MS_WAIT) return MS_WAIT;
  while (follows && found.at) {
    key = found;
    if (ms_look(words, key, &found) == MS_WAIT) return MS_WAIT;
  }
  ms_set_value(ms_emit(out, NULL), follows ? key : found);
  return MS_DONE;
}

/* What sets a field or two. */
static bool simple(ms_bytes word, ms_bytes rest, const ms_record *record, ms_out *out) {
  int64_t millis;
  if (is(word, "drop")) return true;
  if (is(word, "keep")) return ms_emit(out, NULL), true;
  if (is(word, "key")) return ms_set_key(ms_emit(out, NULL), rest), true;
  if (is(word, "value")) return ms_set_value(ms_emit(out, NULL), rest), true;
  if (is(word, "greet")) return ms_set_value(ms_emit(out, NULL), greeting), true;
  if (is(word, "time") && number(rest, &millis)) return ms_set_timestamp(ms_emit(out, NULL), millis), true;
  if (is(word, "timeless")) return ms_set_timestamp(ms_emit(out, NULL), -1), true;
  if (is(word, "both")) return ms_emit(out, "other"), ms_emit(out, NULL), true;
  if (is(word, "nulls") || is(word, "empties")) {
    ms_emitted *emitted = ms_emit(out, NULL);
    ms_bytes given = is(word, "nulls") ? MS_NULL : ms_text("");
    ms_set_key(emitted, given);
    ms_set_value(emitted, given);
    return true;
  }
  if (is(word, "header")) {
    ms_bytes value;
    ms_header(record, rest, &value);
    ms_add_header(ms_emit(out, NULL), ms_text("seen"), value);
    return true;
  }
  return false;
}

ms_status ms_process(const ms_record *record, ms_out *out) {
  ms_bytes value = ms_value(record);
  if (!value.at) return ms_fail(out, "the value is null");
  const uint8_t *space = memchr(value.at, ' ', value.length);
  ms_bytes word = {value.at, space ? (size_t)(space - value.at) : value.length};
  ms_bytes rest = space ? (ms_bytes){space + 1, value.length - word.length - 1} : ms_text("");
  char name[256] = "";
  memcpy(name, rest.at, rest.length < sizeof name - 1 ? rest.length : sizeof name - 1);
  if (simple(word, rest, record, out)) return MS_DONE;
  if (is(word, "upper")) return upper(rest, out);
  if (is(word, "long") || is(word, "many")) return repeat(is(word, "long"), rest, out);
  if (is(word, "json")) return json(rest, out);
  if (is(word, "port")) return ms_emit(out, name), MS_DONE;
  if (is(word, "fail")) return ms_emit(out, NULL), ms_fail(out, "%s", name);
  if (is(word, "crash")) return ms_emit(out, "no-such-port"), MS_DONE;
  if (is(word, "look") || is(word, "follow")) return look(is(word, "follow"), rest, out);
  if (is(word, "forget") || is(word, "count") || is(word, "count-and-fail")) return count(word, ms_key(record), out);
  memset(name, 0, sizeof name);
  memcpy(name, word.at, word.length < sizeof name - 1 ? word.length : sizeof name - 1);
  return ms_fail(out, "no such word: \"%s\"", name);
}

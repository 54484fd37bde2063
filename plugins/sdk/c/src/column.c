/* Memory that grows, and columns of byte strings in it. */

#include "core.h"

#include <stdlib.h>
#include <string.h>

void *buffer_add(buffer *of, const void *bytes, size_t length) {
  if (of->length + length > of->room) {
    size_t room = of->room * 2 > of->length + length ? of->room * 2 : of->length + length + 64;
    uint8_t *grown = realloc(of->at, room);
    if (!grown) abort();
    of->at = grown;
    of->room = room;
  }
  uint8_t *added = of->at + of->length;
  if (bytes && length) memcpy(added, bytes, length);
  of->length += length;
  return added;
}

/* How many bytes the character takes that begins there; 0 where none does. By table 3-7 of the Unicode standard. */
static size_t character(const uint8_t *at, size_t left) {
  uint8_t lead = at[0];
  if (lead < 0x80) return 1;
  size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || left < length) return 0;
  uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (at[1] < low || at[1] > high) return 0;
  for (size_t more = 2; more < length; more++) {
    if ((at[more] & 0xc0) != 0x80) return 0;
  }
  return length;
}

bool is_utf8(ms_bytes text) {
  for (size_t at = 0; at < text.length;) {
    size_t length = character(text.at + at, text.length - at);
    if (!length) return false;
    at += length;
  }
  return true;
}

void buffer_add_text(buffer *of, ms_bytes text) {
  for (size_t at = 0; at < text.length;) {
    size_t length = character(text.at + at, text.length - at);
    buffer_add(of, length ? text.at + at : (const uint8_t *)"\xef\xbf\xbd", length ? length : 3);
    at += length ? length : 1;
  }
}

void buffer_free(buffer *of) {
  free(of->at);
  *of = (buffer){0};
}

static size_t count(const column *of) { return of->ends.length / sizeof(uint32_t); }

void column_add(column *of, ms_bytes string) {
  uint32_t row = (uint32_t)count(of);
  if (!string.at) buffer_add(&of->nulls, &row, sizeof row);
  buffer_add(&of->bytes, string.at, string.at ? string.length : 0);
  uint32_t end = (uint32_t)of->bytes.length;
  buffer_add(&of->ends, &end, sizeof end);
}

void column_truncate(column *of, size_t length) {
  if (length >= count(of)) return;
  const uint32_t *ends = (const uint32_t *)of->ends.at;
  of->bytes.length = length ? ends[length - 1] : 0;
  of->ends.length = length * sizeof(uint32_t);
  const uint32_t *nulls = (const uint32_t *)of->nulls.at;
  while (of->nulls.length && nulls[of->nulls.length / sizeof(uint32_t) - 1] >= length) of->nulls.length -= sizeof(uint32_t);
}

void column_free(column *of) {
  buffer_free(&of->bytes);
  buffer_free(&of->ends);
  buffer_free(&of->nulls);
}

strings column_strings(const column *of) {
  return (strings){
      .bytes = of->bytes.at,
      .ends = (const uint32_t *)of->ends.at,
      .nulls = (const uint32_t *)of->nulls.at,
      .bytes_count = of->bytes.length,
      .count = count(of),
      .nulls_count = of->nulls.length / sizeof(uint32_t),
  };
}

static bool is_null(const strings *of, size_t index) {
  size_t low = 0, high = of->nulls_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (of->nulls[middle] < index) low = middle + 1;
    else high = middle;
  }
  return low < of->nulls_count && of->nulls[low] == index;
}

ms_bytes strings_get(const strings *of, size_t index) {
  if (of->nulls_count && is_null(of, index)) return MS_NULL;
  size_t start = index ? of->ends[index - 1] : 0;
  /* An empty string is somewhere too. */
  const uint8_t *bytes = of->bytes ? of->bytes : (const uint8_t *)"";
  return (ms_bytes){bytes + start, of->ends[index] - start};
}

ms_bytes ms_text(const char *text) {
  return text ? (ms_bytes){(const uint8_t *)text, strlen(text)} : MS_NULL;
}

bool ms_equal(ms_bytes one, ms_bytes other) {
  if (!one.at || !other.at) return !one.at && !other.at;
  return one.length == other.length && memcmp(one.at, other.at, one.length) == 0;
}

#include "stores.h"

#include <stdlib.h>
#include <string.h>

/* A key, and what is known of it: the value that the host has, and what has been put in its place. */
typedef struct {
  ms_bytes key, value, put;
  bool is_wanted, is_known, is_put;
} slot;

/* What a record has changed, and as it was. */
typedef struct {
  size_t slot;
  bool is_put;
  ms_bytes put;
} change;

/* Strings that stay where they are until the call ends. */
typedef struct piece {
  struct piece *next;
  size_t room, used;
  uint8_t bytes[];
} piece;

#define PIECE_BYTES ((size_t)16 << 10)

typedef struct store {
  char *name;
  bool is_state, is_open;
  uint32_t handle;
  /* Of slots, in the order in which their keys were first named; of numbers of slots plus one, by hash; of numbers of slots. */
  buffer slots, table, wanted;
  piece *memory;
  buffer journal;
  struct store *next;
} store;

struct ms_lookup {
  store of;
};

struct ms_state {
  store of;
};

static store *all;
static stores_mode mode;
static bool has_waited;

static size_t slots_count(const store *of) { return of->slots.length / sizeof(slot); }

static slot *slot_at(const store *of, size_t index) { return (slot *)of->slots.at + index; }

static ms_bytes kept(store *of, ms_bytes bytes) {
  if (!bytes.at) return MS_NULL;
  if (!of->memory || of->memory->room - of->memory->used < bytes.length) {
    size_t room = bytes.length > PIECE_BYTES ? bytes.length : PIECE_BYTES;
    piece *added = malloc(sizeof *added + room);
    if (!added) abort();
    *added = (piece){.next = of->memory, .room = room};
    of->memory = added;
  }
  uint8_t *at = of->memory->bytes + of->memory->used;
  memcpy(at, bytes.at, bytes.length);
  of->memory->used += bytes.length;
  return (ms_bytes){at, bytes.length};
}

static void free_memory(store *of) {
  while (of->memory) {
    piece *gone = of->memory;
    of->memory = gone->next;
    free(gone);
  }
}

static size_t hash(ms_bytes key) {
  /* FNV-1a. */
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t at = 0; at < key.length; at++) hash = (hash ^ key.at[at]) * 0x100000001b3u;
  return (size_t)(hash ^ hash >> 32);
}

/* The place of a key in the table: its own, or the free one where it would be. */
static uint32_t *place(const store *of, ms_bytes key) {
  uint32_t *table = (uint32_t *)of->table.at;
  size_t mask = of->table.length / sizeof *table - 1;
  for (size_t at = hash(key) & mask;; at = (at + 1) & mask) {
    if (!table[at] || ms_equal(slot_at(of, table[at] - 1)->key, key)) return &table[at];
  }
}

static void grow(store *of) {
  size_t wanted = of->table.length ? of->table.length * 2 : 64 * sizeof(uint32_t);
  of->table.length = 0;
  memset(buffer_add(&of->table, NULL, wanted), 0, wanted);
  for (size_t at = 0; at < slots_count(of); at++) *place(of, slot_at(of, at)->key) = (uint32_t)at + 1;
}

static size_t slot_of(store *of, ms_bytes key) {
  if (2 * (slots_count(of) + 1) > of->table.length / sizeof(uint32_t)) grow(of);
  uint32_t *found = place(of, key);
  if (!*found) {
    slot added = {.key = kept(of, key)};
    buffer_add(&of->slots, &added, sizeof added);
    *found = (uint32_t)slots_count(of);
  }
  return *found - 1;
}

static store *opened(const char *name, bool is_state) {
  for (store *of = all; of; of = of->next) {
    if (of->is_state == is_state && strcmp(of->name, name) == 0) return of;
  }
  store *added = calloc(1, sizeof *added);
  char *own = malloc(strlen(name) + 1);
  if (!added || !own) abort();
  added->name = strcpy(own, name);
  added->is_state = is_state;
  store **last = &all;
  while (*last) last = &(*last)->next;
  return *last = added;
}

ms_lookup *ms_open_lookup(const char *name) { return (ms_lookup *)opened(name, false); }

ms_state *ms_open_state(const char *name) { return (ms_state *)opened(name, true); }

static const char *open(store *of) {
  if (of->is_open) return NULL;
  const char *why = of->is_state ? host_open_state(of->name, &of->handle) : host_open_lookup(of->name, &of->handle);
  of->is_open = !why;
  return why;
}

static const char *catch_up(store *of) {
  size_t count = of->wanted.length / sizeof(size_t);
  if (!count) return NULL;
  const char *why = open(of);
  if (why) return why;
  const size_t *wanted = (const size_t *)of->wanted.at;
  column keys = {0};
  for (size_t at = 0; at < count; at++) column_add(&keys, slot_at(of, wanted[at])->key);
  strings asked = column_strings(&keys);
  strings found = of->is_state ? host_get(of->handle, &asked) : host_look(of->handle, &asked);
  for (size_t at = 0; at < count; at++) {
    slot *slot = slot_at(of, wanted[at]);
    slot->is_wanted = false;
    slot->is_known = true;
    slot->value = strings_get(&found, at);
  }
  of->wanted.length = 0;
  column_free(&keys);
  return NULL;
}

static ms_status get(store *of, ms_bytes key, ms_bytes *found) {
  *found = MS_NULL;
  if (!key.at) return MS_DONE;
  size_t number = slot_of(of, key);
  slot *slot = slot_at(of, number);
  if (slot->is_put) {
    *found = slot->put;
    return MS_DONE;
  }
  if (!slot->is_known) {
    if (!slot->is_wanted) buffer_add(&of->wanted, &number, sizeof number);
    slot->is_wanted = true;
    if (mode != AT_ONCE || catch_up(of)) {
      has_waited = true;
      return MS_WAIT;
    }
  }
  *found = slot->value;
  return MS_DONE;
}

ms_status ms_look(ms_lookup *lookup, ms_bytes key, ms_bytes *found) { return get(&lookup->of, key, found); }

ms_status ms_get(ms_state *state, ms_bytes key, ms_bytes *found) { return get(&state->of, key, found); }

void ms_put(ms_state *state, ms_bytes key, ms_bytes value) {
  if (!key.at || mode == CONFIGURING) return;
  store *of = &state->of;
  size_t number = slot_of(of, key);
  slot *slot = slot_at(of, number);
  change before = {number, slot->is_put, slot->put};
  buffer_add(&of->journal, &before, sizeof before);
  slot->is_put = true;
  slot->put = kept(of, value);
}

void stores_begin(stores_mode wanted) { mode = wanted; }

bool stores_take_waited(void) {
  bool waited = has_waited;
  has_waited = false;
  return waited;
}

void stores_keep(void) {
  for (store *of = all; of; of = of->next) of->journal.length = 0;
}

void stores_undo(void) {
  for (store *of = all; of; of = of->next) {
    const change *journal = (const change *)of->journal.at;
    for (size_t at = of->journal.length / sizeof *journal; at-- > 0;) {
      slot *slot = slot_at(of, journal[at].slot);
      slot->is_put = journal[at].is_put;
      slot->put = journal[at].put;
    }
    of->journal.length = 0;
  }
}

const char *stores_catch_up(void) {
  for (store *of = all; of; of = of->next) {
    const char *why = catch_up(of);
    if (why) return why;
  }
  return NULL;
}

static const char *write_one(store *of) {
  column keys = {0}, values = {0};
  for (size_t at = 0; at < slots_count(of); at++) {
    const slot *slot = slot_at(of, at);
    bool is_nothing = slot->is_known && !slot->value.at && !slot->put.at;
    if (!slot->is_put || is_nothing) continue;
    column_add(&keys, slot->key);
    column_add(&values, slot->put);
  }
  strings changed = column_strings(&keys), to = column_strings(&values);
  const char *why = changed.count ? open(of) : NULL;
  if (changed.count && !why) host_put(of->handle, &changed, &to);
  column_free(&keys);
  column_free(&values);
  return why;
}

const char *stores_write(void) {
  for (store *of = all; of; of = of->next) {
    const char *why = of->is_state ? write_one(of) : NULL;
    if (why) return why;
  }
  return NULL;
}

void stores_forget(void) {
  mode = CONFIGURING;
  has_waited = false;
  for (store *of = all; of; of = of->next) {
    of->slots.length = of->table.length = of->wanted.length = of->journal.length = 0;
    free_memory(of);
  }
}

void stores_needs(needs *needed) {
  size_t count = 0;
  for (store *of = all; of; of = of->next) count++;
  free(needed->lookups);
  free(needed->state);
  *needed = (needs){.lookups = calloc(count + 1, sizeof(char *)), .state = calloc(count + 1, sizeof(char *))};
  if (!needed->lookups || !needed->state) abort();
  for (store *of = all; of; of = of->next) {
    if (of->is_state) needed->state[needed->state_count++] = of->name;
    else needed->lookups[needed->lookups_count++] = of->name;
  }
}

void stores_reset(void) {
  stores_forget();
  while (all) {
    store *gone = all;
    all = gone->next;
    buffer_free(&gone->slots);
    buffer_free(&gone->table);
    buffer_free(&gone->wanted);
    buffer_free(&gone->journal);
    free(gone->name);
    free(gone);
  }
}

/* Tables and state, key by key; underneath, the keys of a batch are fetched, and written, with one call each.
 *
 * Invariant: what a call fetched, and what it put and didn't write, is forgotten when it ends. */
#ifndef MILLSTREAM_STORES_H
#define MILLSTREAM_STORES_H

#include "core.h"

/* How keys get their values: not at all; or all that the records of a batch want together; or each at once. */
typedef enum { CONFIGURING, COLLECTING, AT_ONCE } stores_mode;

void stores_begin(stores_mode mode);
/* Whether the record being processed has asked for a key that isn't known, whatever it returned. */
bool stores_take_waited(void);
/* What the record has put stays, or is undone. */
void stores_keep(void);
void stores_undo(void);
/* Fetches what was asked for; writes what was put. Return what is wrong, or NULL. */
const char *stores_catch_up(void);
const char *stores_write(void);
void stores_forget(void);
/* The names of all that were opened. */
void stores_needs(needs *needed);
/* For another configuration, in a test. */
void stores_reset(void);

#endif

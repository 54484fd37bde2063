/* What a batch's records have emitted so far. */
#ifndef MILLSTREAM_OUT_H
#define MILLSTREAM_OUT_H

#include "core.h"

/* Begins a batch. */
void out_reset(ms_out *out);
/* Begins a record: what is emitted from here on comes from it. */
void out_begin(ms_out *out, uint32_t origin);
/* Forgets what the record has emitted, and why it failed. */
void out_undo(ms_out *out);
/* Why the record failed, null where it didn't say so. */
ms_bytes out_reason(const ms_out *out);
/* Whether the record did what can't be done, whatever it returned. */
bool out_is_misused(const ms_out *out);
/* Returns how many ports have records, and these. They stay until the next call. */
size_t out_outputs(ms_out *out, const batch *of, output **outputs);

ms_out *the_out(void);

#endif

/* Writes records to a pipe without ever waiting for its reader. */
#ifndef TOPICWARDEN_ATTRIBUTE_OUTPUT_H
#define TOPICWARDEN_ATTRIBUTE_OUTPUT_H

#include <stdbool.h>

#include "attribute_find.h"
#include "attribute_process.h"

/* Standard output must be a pipe or a socket; false with errno set when it is not. */
bool tw_output_setup(void);
void tw_output_ready(void);
/* `request` and `process` may be NULL. */
void tw_output_connection(const struct tw_attribute_request *request, const struct tw_found *found,
                          enum tw_attribute_result result, const struct tw_process *process);
/* Whether something waits for room in the pipe. */
bool tw_output_waiting(void);
/* Writes what the pipe takes; false when nobody reads it any more. */
bool tw_output_flush(void);

#endif

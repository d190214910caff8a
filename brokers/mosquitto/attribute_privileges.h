/* Gives up whatever the helper does not need. */
#ifndef TOPICWARDEN_ATTRIBUTE_PRIVILEGES_H
#define TOPICWARDEN_ATTRIBUTE_PRIVILEGES_H

/* Keeps CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH alone, for good. Returns NULL, or what is missing (a static text). */
const char *tw_privileges_drop(void);

#endif

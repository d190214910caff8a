/* The functions Mosquitto 2.1 calls in a plugin; for a compile check. Included by mosquitto.h. */
#ifndef MOSQUITTO_PLUGIN_H
#define MOSQUITTO_PLUGIN_H

int mosquitto_plugin_version(int supported_version_count, const int *supported_versions);
int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options,
                          int option_count);
int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int option_count);

#endif

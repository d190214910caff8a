/* OpenSSL is already in the process when the broker speaks TLS; weak references spare us a build dependency on it and
 * leave the plugin loadable in a broker built without it. */
#include <string.h>

#include "broker_api.h"

#define WEAK __attribute__((weak))

extern WEAK void *X509_get_subject_name(const void *certificate);
extern WEAK void X509_free(void *certificate);
extern WEAK int X509_NAME_print_ex(void *bio, const void *name, int indent, unsigned long flags);
extern WEAK void *BIO_new(const void *method);
extern WEAK const void *BIO_s_mem(void);
extern WEAK int BIO_read(void *bio, void *data, int length);
extern WEAK int BIO_free(void *bio);

/* XN_FLAG_RFC2253 without ASN1_STRFLGS_ESC_MSB: names stay UTF-8. Control characters are escaped. */
#define RFC2253_UTF8 (0x1110317ul & ~4ul)

bool tw_certificate_subject(struct mosquitto *client, char *subject, size_t room, size_t *length) {
    *length = 0;
    if(!X509_get_subject_name || !X509_free || !X509_NAME_print_ex || !BIO_new || !BIO_s_mem || !BIO_read || !BIO_free)
        return false;
    void *certificate = mosquitto_client_certificate(client);
    if(!certificate) return false;
    void *name = X509_get_subject_name(certificate);
    void *bio = name ? BIO_new(BIO_s_mem()) : NULL;
    int written = -1;
    if(bio) {
        if(X509_NAME_print_ex(bio, name, 0, RFC2253_UTF8) >= 0) written = BIO_read(bio, subject, (int)room - 1);
        BIO_free(bio);
    }
    X509_free(certificate);
    if(written < 0) return false;
    subject[written] = 0;
    *length = (size_t)written;
    return true;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * rxpeer: an OpenAFS Rx peer for interoperability and performance tests.
 *
 * Written for this project; links against Debian's OpenAFS library. It speaks
 * the wire operations of rxperf (service 147, protocol version 3), so it also
 * works against OpenAFS's rxperf and the Linux kernel's rxperf server, and it
 * adds operations of its own from number 256 up. See README.md beside it.
 */
#include <afs/param.h>
#include <afs/stds.h>
#include <sys/types.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rx/rx.h>
#include <rx/rx_globals.h>
#include <rx/rx_packet.h>
#include <rx/rx_null.h>
#include <rx/rxkad.h>
#include <afs/cellconfig.h>
#include <afs/rxgen_consts.h>
#ifdef WITH_KRB5
#include <krb5.h>
#endif

#ifndef SHARED_RX		/* not exported by the shared library */
extern int rxi_nSendFrags, rxi_nRecvFrags;
#endif

#define SERVICE   147
#define VERSION   3
#define COOKIE    0x4711u
#define IOSIZE    (512 * 1024)		/* the largest rxperf accepts */
#define SECIDX_NULL  0
#define SECIDX_RXKAD 2

enum {
    OP_SEND = 0, OP_RECV = 1, OP_RPC = 3,	/* rxperf's */
    OP_ECHO = 256, OP_ABORT = 257, OP_SLOWREAD = 258, OP_SLOWWRITE = 259,
    OP_SUM = 260, OP_PATTERN = 261
};
static const struct { const char *name; int op; } opnames[] = {
    {"send", OP_SEND}, {"recv", OP_RECV}, {"rpc", OP_RPC}, {"echo", OP_ECHO},
    {"abort", OP_ABORT}, {"slowread", OP_SLOWREAD}, {"slowwrite", OP_SLOWWRITE},
    {"sum", OP_SUM}, {"pattern", OP_PATTERN},
    {"cabort", 1000}, {"setacl", 1001}, {"ptsuser", 1002}, {"fsfile", 1003}, {NULL, 0}
};
static const char *opname(int op)
{
    int i;
    for (i = 0; opnames[i].name; i++)
	if (opnames[i].op == op)
	    return opnames[i].name;
    return "?";
}

/* ---- options ------------------------------------------------------------ */

static const char *o_security = "null";
static int o_level = -1;		/* rxkad level, -1 = null */
static int o_require = 0;
static long long o_bytes = 1024, o_sendb = 3, o_recvb = 30, o_after = 0;
static int o_count = 1, o_threads = 1, o_conns = 1, o_chunk = 65536;
static int o_delay = 1000;
static int o_code = 4711;
static int o_mtu, o_window, o_udpbuf, o_nojumbo, o_dead, o_hard, o_idle;
static int o_frags, o_drop, o_droprecv, o_procs = 16, o_nostats, o_hot;
static int o_verify, o_stats, o_quiet, o_service = SERVICE, o_tkt4;
static int o_checkreach, o_showkey, o_expired;
static int o_number;			/* `sum` carries its call's number */
static int o_pace;			/* microseconds the client sleeps per chunk */
static int o_opcode = -1;		/* sent instead of the operation's own number */
static const char *o_bind, *o_krb5, *o_confdir, *o_name = "admin", *o_port_s;
static long o_vol, o_vnode = 1, o_uniq = 1;
static int o_enctype = 18, o_kvno = 1;
static unsigned char o_key[64];
static size_t o_keylen = 32;
static struct ktc_encryptionKey o_session = {
    {0x01, 0x23, 0x45, 0x67, (char)0x89, (char)0xab, (char)0xcd, (char)0xef}
};

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "rxpeer: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static size_t unhex(const char *s, unsigned char *out, size_t max)
{
    size_t n = 0;
    unsigned v;
    while (s[0] && s[1]) {
	if (n == max || sscanf(s, "%2x", &v) != 1)
	    die("bad hex string");
	out[n++] = v;
	s += 2;
    }
    if (*s)
	die("odd hex string");
    return n;
}

/* Content of verified transfers: a function of the position, with no period
 * that divides a packet size. */
static inline unsigned char pat(unsigned long long i, unsigned seed)
{
    return (unsigned char)((i * 167 + (i >> 8) * 59 + (i >> 16) * 31 + seed) & 0xff);
}

static unsigned crctab[256];
static void crcinit(void)
{
    unsigned i, j, c;
    for (i = 0; i < 256; i++) {
	for (c = i, j = 0; j < 8; j++)
	    c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
	crctab[i] = c;
    }
}
static unsigned crc32u(unsigned c, const unsigned char *p, size_t n)
{
    c = ~c;
    while (n--)
	c = crctab[(c ^ *p++) & 0xff] ^ (c >> 8);
    return ~c;
}

/* ---- small I/O helpers over a call ----------------------------------------- */

static int put32(struct rx_call *c, afs_uint32 v)
{
    v = htonl(v);
    return rx_Write(c, (char *)&v, 4) == 4 ? 0 : -1;
}
static int get32(struct rx_call *c, afs_uint32 *v)
{
    if (rx_Read(c, (char *)v, 4) != 4)
	return -1;
    *v = ntohl(*v);
    return 0;
}

/* Reads n bytes in pieces; checks the pattern and adds to a CRC if asked.
 * Returns 0, -1 on a short read, 1 on wrong content. */
static int readn(struct rx_call *c, char *buf, long long n, int chunk,
		 int delay_us, int verify, unsigned seed, unsigned *crc)
{
    long long off = 0;
    int bad = 0;
    while (off < n) {
	int want = n - off < chunk ? (int)(n - off) : chunk, i;
	if (rx_Read(c, buf, want) != want)
	    return -1;
	if (verify)
	    for (i = 0; i < want; i++)
		if ((unsigned char)buf[i] != pat(off + i, seed))
		    bad = 1;
	if (crc)
	    *crc = crc32u(*crc, (unsigned char *)buf, want);
	off += want;
	if (delay_us)
	    usleep(delay_us);
    }
    return bad;
}

static int writen(struct rx_call *c, char *buf, long long n, int chunk,
		  int delay_us, int pattern, unsigned seed, unsigned *crc)
{
    long long off = 0;
    if (!pattern)
	memset(buf, 0, chunk);
    while (off < n) {
	int want = n - off < chunk ? (int)(n - off) : chunk, i;
	if (pattern)
	    for (i = 0; i < want; i++)
		buf[i] = pat(off + i, seed);
	if (crc)
	    *crc = crc32u(*crc, (unsigned char *)buf, want);
	if (rx_Write(c, buf, want) != want)
	    return -1;
	/* No rx_FlushWrite here: in OpenAFS it ends the sending phase. Bytes
	 * leave as packets fill up. */
	if (delay_us)
	    usleep(delay_us);
	off += want;
    }
    return 0;
}

/* ---- security ------------------------------------------------------------- */

/* Service key lookup for the server, both key kinds. */
static int getkey_des(void *rock, int kvno, struct ktc_encryptionKey *k)
{
    if (o_keylen != 8 || kvno != o_kvno)
	return 19270408;	/* RXKADUNKNOWNKEY */
    memcpy(k, o_key, 8);
    return 0;
}
static int getkey_enctype(void *rock, int kvno, int enctype, void *k, size_t *len)
{
    if (enctype != o_enctype || kvno != o_kvno || *len < o_keylen)
	return 19270408;
    memcpy(k, o_key, o_keylen);
    *len = o_keylen;
    return 0;
}

static struct rx_securityClass *client_security(int *idx)
{
    /* A server forgives clocks that differ by a quarter of an hour. */
    time_t begin = time(0) - (o_expired ? 7200 : 300);
    time_t end = o_expired ? begin + 60 : begin + 36300;
    static char ticket[MAXKTCTICKETLEN];
    int len = sizeof(ticket), kvno = o_kvno, code;
    if (o_level < 0) {
	*idx = SECIDX_NULL;
	return rxnull_NewClientSecurityObject();
    }
    *idx = SECIDX_RXKAD;
    if (o_confdir) {
	struct rx_securityClass *sc = NULL;
	afs_int32 i = 0;
	struct afsconf_dir *d = afsconf_Open(o_confdir);
	if (!d)
	    die("cannot open %s", o_confdir);
	code = o_level == rxkad_crypt ? afsconf_ClientAuthSecure(d, &sc, &i)
				      : afsconf_ClientAuth(d, &sc, &i);
	if (code || i != 2)
	    die("no key in %s (code %d)", o_confdir, code);
	*idx = i;
	return sc;
    }
    if (o_krb5) {
#ifdef WITH_KRB5
	krb5_context ctx;
	krb5_ccache cc;
	krb5_creds want, *got;
	struct ktc_encryptionKey k;
	memset(&want, 0, sizeof(want));
	if ((code = krb5_init_context(&ctx)) || (code = krb5_cc_default(ctx, &cc))
	    || (code = krb5_cc_get_principal(ctx, cc, &want.client))
	    || (code = krb5_parse_name(ctx, o_krb5, &want.server))
	    || (code = krb5_get_credentials(ctx, 0, cc, &want, &got)))
	    die("Kerberos: %s", krb5_get_error_message(ctx, code));
	if (tkt_DeriveDesKey(got->keyblock.enctype, got->keyblock.contents,
			     got->keyblock.length, &k))
	    die("cannot derive a session key");
	if (got->ticket.length > sizeof(ticket))
	    die("ticket too long");
	o_session = k;
	if (o_showkey) {
	    unsigned char *b = (unsigned char *)&k;
	    int i;
	    printf("{\"session_key\":\"");
	    for (i = 0; i < 8; i++)
		printf("%02x", b[i]);
	    printf("\",\"krb5_enctype\":%d,\"krb5_key\":\"", got->keyblock.enctype);
	    for (i = 0; i < (int)got->keyblock.length; i++)
		printf("%02x", got->keyblock.contents[i]);
	    printf("\",\"service\":%d}\n", o_service);
	}
	return rxkad_NewClientSecurityObject(o_level, &k, RXKAD_TKT_TYPE_KERBEROS_V5,
					     got->ticket.length, got->ticket.data);
#else
	die("built without Kerberos");
#endif
    }
    if (o_tkt4) {
	struct ktc_encryptionKey sk;
	if (o_keylen != 8)
	    die("--ticket4 needs a DES key");
	memcpy(&sk, o_key, 8);
	code = tkt_MakeTicket(ticket, &len, &sk, "rxtest", "", "", begin, end,
			      &o_session, 0, "afs", "");
    } else
	code = tkt_MakeTicket5(ticket, &len, o_enctype, &kvno, o_key, o_keylen,
			       "rxtest", "", "RXTEST.LOCAL", begin, end,
			       &o_session, "afs", "");
    if (code)
	die("making the ticket failed: %d", code);
    return rxkad_NewClientSecurityObject(o_level, &o_session, kvno, len, ticket);
}

/* ---- server --------------------------------------------------------------- */

static pthread_mutex_t st_lock = PTHREAD_MUTEX_INITIALIZER;
static long long st_calls, st_in, st_out, st_errors;

/* Which numbered calls have run: a bit each. */
#define NUMBERS_MAX (1ull << 30)
static unsigned char *nr_seen;
static long long nr_ran, nr_again, nr_strange;

static void note_number(const unsigned char *b, afs_uint32 n)
{
    unsigned long long nr = 0;
    int i;
    for (i = 0; i < 8; i++)
	nr = nr << 8 | b[i];
    pthread_mutex_lock(&st_lock);
    if (!nr_seen && !(nr_seen = calloc(NUMBERS_MAX / 8, 1)))
	die("no memory for numbers");
    if (n < 8 || nr >= NUMBERS_MAX)
	nr_strange++;
    else if (nr_seen[nr / 8] & 1 << nr % 8)
	nr_again++;
    else {
	nr_seen[nr / 8] |= 1 << nr % 8;
	nr_ran++;
    }
    pthread_mutex_unlock(&st_lock);
}

static afs_int32 serve1(struct rx_call *c, int *op, long long *in, long long *out)
{
    static __thread char *buf;
    afs_uint32 v, o, rs, ws, a, b, d, crc = 0;
    int chunk, rc;

    if (!buf)
	buf = malloc(IOSIZE);
    if (get32(c, &v) || get32(c, &o) || get32(c, &rs) || get32(c, &ws))
	return RXGEN_SS_UNMARSHAL;
    *op = o;
    if (v != VERSION)
	return -1;
    if (rs > IOSIZE || ws > IOSIZE)
	return -1;
    if (!rs)
	rs = IOSIZE;
    if (!ws)
	ws = IOSIZE;
    switch (o) {
    case OP_SEND:
    case OP_SUM:
	if (get32(c, &a))
	    return RXGEN_SS_UNMARSHAL;
	if (readn(c, buf, a, rs, 0, 0, 0, o == OP_SUM ? &crc : NULL) < 0)
	    return RXGEN_SS_UNMARSHAL;
	*in = a;
	if (o == OP_SUM && o_number)
	    note_number((unsigned char *)buf, a);
	if (o == OP_SUM && (put32(c, a) || put32(c, crc)))
	    return RXGEN_SS_MARSHAL;
	break;
    case OP_RECV:
	if (get32(c, &a))
	    return RXGEN_SS_UNMARSHAL;
	if (writen(c, buf, a, ws, 0, 0, 0, NULL))
	    return RXGEN_SS_MARSHAL;
	*out = a;
	break;
    case OP_PATTERN:
	if (get32(c, &a) || get32(c, &b))
	    return RXGEN_SS_UNMARSHAL;
	if (writen(c, buf, a, ws, 0, 1, b, &crc) || put32(c, crc))
	    return RXGEN_SS_MARSHAL;
	*out = a;
	break;
    case OP_RPC:
	if (get32(c, &a) || get32(c, &b))
	    return RXGEN_SS_UNMARSHAL;
	if (readn(c, buf, a, rs, 0, 0, 0, NULL) < 0)
	    return RXGEN_SS_UNMARSHAL;
	*in = a;
	if (writen(c, buf, b, ws, 0, 0, 0, NULL))
	    return RXGEN_SS_MARSHAL;
	*out = b;
	break;
    case OP_ECHO: {
	/* Reads everything first: an Rx call is half duplex, the first byte
	 * written by the server ends its reading. */
	char *all;
	if (get32(c, &a))
	    return RXGEN_SS_UNMARSHAL;
	if (a > 1u << 30 || !(all = malloc(a ? a : 1)))
	    return -1;
	rc = 0;
	if (a && rx_Read(c, all, a) != (int)a)
	    rc = RXGEN_SS_UNMARSHAL;
	else if (a && rx_Write(c, all, a) != (int)a)
	    rc = RXGEN_SS_MARSHAL;
	free(all);
	if (rc)
	    return rc;
	*in = *out = a;
	break;
    }
    case OP_ABORT:
	/* code, bytes to read first, bytes to write first */
	if (get32(c, &d) || get32(c, &a) || get32(c, &b))
	    return RXGEN_SS_UNMARSHAL;
	if (readn(c, buf, a, rs, 0, 0, 0, NULL) < 0)
	    return RXGEN_SS_UNMARSHAL;
	*in = a;
	if (b && writen(c, buf, b, ws, 0, 0, 0, NULL))
	    return RXGEN_SS_MARSHAL;
	*out = b;
	return (afs_int32)d;
    case OP_SLOWREAD:
    case OP_SLOWWRITE:
	/* bytes, piece size, microseconds between pieces */
	if (get32(c, &a) || get32(c, &b) || get32(c, &d))
	    return RXGEN_SS_UNMARSHAL;
	chunk = b < 1 ? 1 : b > IOSIZE ? IOSIZE : (int)b;
	if (o == OP_SLOWREAD) {
	    if (readn(c, buf, a, chunk, d, 0, 0, NULL) < 0)
		return RXGEN_SS_UNMARSHAL;
	    *in = a;
	} else {
	    if (writen(c, buf, a, chunk, d, 0, 0, NULL))
		return RXGEN_SS_MARSHAL;
	    *out = a;
	}
	break;
    default:
	return RXGEN_OPCODE;
    }
    return put32(c, COOKIE) ? RXGEN_SS_MARSHAL : 0;
}

static afs_int32 serve(struct rx_call *c)
{
    int op = -1;
    long long in = 0, out = 0;
    double t0 = now();
    afs_int32 code = serve1(c, &op, &in, &out);
    int e = rx_Error(c);

    pthread_mutex_lock(&st_lock);
    st_calls++;
    st_in += in;
    st_out += out;
    if (code || e)
	st_errors++;
    pthread_mutex_unlock(&st_lock);
    if (!o_quiet) {
	struct rx_connection *cn = rx_ConnectionOf(c);
	struct in_addr a = { rx_HostOf(rx_PeerOf(cn)) };
	char name[256] = "", inst[256] = "", cell[256] = "", ip[32];
	rxkad_level lvl = -1;
	afs_uint32 exp;
	afs_int32 kv;
	inet_ntop(AF_INET, &a, ip, sizeof(ip));
	if (rxkad_GetServerInfo(cn, &lvl, &exp, name, inst, cell, &kv))
	    lvl = -1;
	flockfile(stdout);
	printf("{\"event\":\"call\",\"op\":\"%s\",\"peer\":\"%s:%d\",\"in\":%lld,"
	       "\"out\":%lld,\"code\":%d,\"rx_error\":%d,\"seconds\":%.6f,"
	       "\"rxkad_level\":%d,\"user\":\"%s%s%s@%s\"}\n", opname(op), ip,
	       ntohs(rx_PortOf(rx_PeerOf(cn))), in, out, code, e, now() - t0, lvl,
	       name, inst[0] ? "." : "", inst, cell);
	fflush(stdout);
	funlockfile(stdout);
    }
    return code;
}

static double tvs(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

/* Counters of the whole process; all 0 with --nostats. */
enum { BUSY_SENT, BUSY_READ, RESENT };
static int counters(int what)
{
    struct rx_statistics *s = rx_GetStatistics();
    int n = what == BUSY_SENT ? s->packetsSent[RX_PACKET_TYPE_BUSY - 1]
	  : what == BUSY_READ ? s->packetsRead[RX_PACKET_TYPE_BUSY - 1] : s->dataPacketsReSent;
    rx_FreeStatistics(&s);
    return n;
}

static void *server_signals(void *arg)
{
    sigset_t *s = arg;
    int sig;
    struct rusage ru;
    for (;;) {
	sigwait(s, &sig);
	getrusage(RUSAGE_SELF, &ru);
	pthread_mutex_lock(&st_lock);
	printf("{\"event\":\"totals\",\"calls\":%lld,\"in\":%lld,\"out\":%lld,\"errors\":%lld,"
	       "\"busy\":%d,\"retransmitted\":%d,\"ran\":%lld,\"again\":%lld,\"strange\":%lld,"
	       "\"cpu_user\":%.3f,\"cpu_sys\":%.3f,\"maxrss_kb\":%ld}\n", st_calls, st_in,
	       st_out, st_errors, counters(BUSY_SENT), counters(RESENT), nr_ran, nr_again, nr_strange, tvs(ru.ru_utime),
	       tvs(ru.ru_stime), ru.ru_maxrss);
	fflush(stdout);
	pthread_mutex_unlock(&st_lock);
	if (o_stats && sig != SIGUSR1)
	    rx_PrintStats(stderr);
	if (sig != SIGUSR1)
	    _exit(0);
    }
}

static void rx_setup_before(void)
{
    if (o_nostats)
	rx_enable_stats = 0;
#ifdef SHARED_RX
    if (o_hot || o_frags || o_drop || o_droprecv)
	die("--hot, --frags, --drop and --droprecv need the static build");
#else
    if (o_hot)
	rx_EnableHotThread();
#endif
    if (o_udpbuf)
	rx_SetUdpBufSize(o_udpbuf * 1024);
    if (o_dead)
	rx_SetRxDeadTime(o_dead);
}
static void rx_setup_after(void)
{
#ifndef SHARED_RX
    /* The system's limit may be below what was asked for; root may pass it. */
    if (o_udpbuf) {
	int bytes = o_udpbuf * 1024;
	setsockopt(rx_socket, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    }
#endif
    if (o_nojumbo)
	rx_SetNoJumbo();
#ifndef SHARED_RX
    if (o_frags)
	rxi_nSendFrags = rxi_nRecvFrags = o_frags;
    rx_intentionallyDroppedPacketsPer100 = o_drop;
    rx_intentionallyDroppedOnReadPer100 = o_droprecv;
#endif
    if (o_mtu)
	rx_SetMaxMTU(o_mtu);
    if (o_window) {
	rx_SetMaxReceiveWindow(o_window);
	rx_SetMaxSendWindow(o_window);
    }
}

static int run_server(int port)
{
    struct rx_securityClass *classes[3] = { NULL, NULL, NULL }, **cl = classes;
    afs_int32 ncl = 3;
    struct rx_service *svc;
    static sigset_t s;
    pthread_t th;
    int rc;

    sigemptyset(&s);
    sigaddset(&s, SIGTERM);
    sigaddset(&s, SIGINT);
    sigaddset(&s, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &s, NULL);
    pthread_create(&th, NULL, server_signals, &s);

    rx_setup_before();
    rc = o_bind ? rx_InitHost(inet_addr(o_bind), htons(port)) : rx_Init(htons(port));
    if (rc)
	die("rx_Init on port %d failed: %d", port, rc);
    rx_setup_after();

    if (o_confdir) {
	struct afsconf_dir *d = afsconf_Open(o_confdir);
	if (!d)
	    die("cannot open %s", o_confdir);
	afsconf_BuildServerSecurityObjects(d, &cl, &ncl);
    } else {
	if (!o_require)
	    classes[SECIDX_NULL] = rxnull_NewServerSecurityObject();
	if (o_level >= 0 || !o_require)
	    classes[SECIDX_RXKAD] =
		rxkad_NewKrb5ServerSecurityObject(o_level < 0 ? 0 : o_level, NULL,
						  getkey_des, getkey_enctype, NULL);
    }
    svc = rx_NewService(0, o_service, "rxpeer", cl, ncl, serve);
    if (!svc)
	die("rx_NewService failed");
    rx_SetMinProcs(svc, 2);
    rx_SetMaxProcs(svc, o_procs);
    if (o_checkreach)
	rx_SetCheckReach(svc, 1);
    printf("{\"event\":\"ready\",\"port\":%d,\"service\":%d,\"pid\":%d}\n", ntohs(rx_port), o_service, getpid());
    fflush(stdout);
    rx_StartServer(1);
    return 1;
}

/* ---- client ---------------------------------------------------------------- */

struct worker {
    pthread_t th;
    struct rx_connection *conn;
    int op, done, errors, badcontent;
    int last_error, index;
    long long in, out;
    double *lat;
    char *buf;
};

static int start(struct rx_call *c, int op)
{
    return put32(c, VERSION) || put32(c, o_opcode >= 0 ? o_opcode : op) || put32(c, o_chunk) || put32(c, o_chunk);
}

/* One call. Returns 0 or -1 (the call's error is then in rx_Error). */
static int one(struct worker *w, struct rx_call *c, int idx)
{
    afs_uint32 v, crc = 0, got;
    unsigned seed = idx & 0xff;
    int rc;
    char *b = w->buf;

    switch (w->op) {
    case OP_SEND:
	if (start(c, w->op) || put32(c, o_bytes) || writen(c, b, o_bytes, o_chunk, o_pace, o_verify, seed, NULL))
	    return -1;
	w->out += o_bytes;
	break;
    case OP_SUM:
	if (o_number) {
	    unsigned long long nr = (unsigned long long)w->index * o_count + idx;
	    int n = (int)o_bytes, i;
	    for (i = 0; i < n; i++)
		b[i] = i < 8 ? nr >> (56 - 8 * i) : pat(i, seed);
	    crc = crc32u(crc, (unsigned char *)b, n);
	    if (start(c, w->op) || put32(c, n) || rx_Write(c, b, n) != n || get32(c, &got) || get32(c, &v))
		return -1;
	} else if (start(c, w->op) || put32(c, o_bytes) || writen(c, b, o_bytes, o_chunk, o_pace, 1, seed, &crc)
	    || get32(c, &got) || get32(c, &v))
	    return -1;
	if (got != (afs_uint32)o_bytes || v != crc)
	    w->badcontent++;
	w->out += o_bytes;
	break;
    case OP_RECV:
	if (start(c, w->op) || put32(c, o_bytes) || readn(c, b, o_bytes, o_chunk, o_pace, 0, 0, NULL) < 0)
	    return -1;
	w->in += o_bytes;
	break;
    case OP_PATTERN:
	if (start(c, w->op) || put32(c, o_bytes) || put32(c, seed))
	    return -1;
	rc = readn(c, b, o_bytes, o_chunk, o_pace, 1, seed, &crc);
	if (rc < 0 || get32(c, &got))
	    return -1;
	if (rc || got != crc)
	    w->badcontent++;
	w->in += o_bytes;
	break;
    case OP_RPC:
	if (start(c, w->op) || put32(c, o_sendb) || put32(c, o_recvb)
	    || writen(c, b, o_sendb, o_chunk, 0, 0, 0, NULL)
	    || readn(c, b, o_recvb, o_chunk, 0, 0, 0, NULL) < 0)
	    return -1;
	w->out += o_sendb;
	w->in += o_recvb;
	break;
    case OP_ECHO:
	if (start(c, w->op) || put32(c, o_bytes) || writen(c, b, o_bytes, o_chunk, 0, 1, seed, NULL))
	    return -1;
	rc = readn(c, b, o_bytes, o_chunk, 0, 1, seed, NULL);
	if (rc < 0)
	    return -1;
	if (rc)
	    w->badcontent++;
	w->out += o_bytes;
	w->in += o_bytes;
	break;
    case OP_ABORT:
	if (start(c, w->op) || put32(c, o_code) || put32(c, o_sendb) || put32(c, o_recvb)
	    || writen(c, b, o_sendb, o_chunk, 0, 0, 0, NULL)
	    || readn(c, b, o_recvb, o_chunk, 0, 0, 0, NULL) < 0)
	    return -1;
	break;
    case OP_SLOWREAD:		/* the server reads slowly */
	if (start(c, w->op) || put32(c, o_bytes) || put32(c, o_after ? o_after : 1024) || put32(c, o_delay)
	    || writen(c, b, o_bytes, o_chunk, 0, 0, 0, NULL))
	    return -1;
	w->out += o_bytes;
	break;
    case OP_SLOWWRITE:		/* the server writes slowly */
	if (start(c, w->op) || put32(c, o_bytes) || put32(c, o_after ? o_after : 1024) || put32(c, o_delay)
	    || readn(c, b, o_bytes, o_chunk, 0, 0, 0, NULL) < 0)
	    return -1;
	w->in += o_bytes;
	break;
    case 1000:			/* the client gives up with its own code */
	if (start(c, OP_SEND) || put32(c, o_bytes)
	    || writen(c, b, o_after < o_bytes ? o_after : o_bytes / 2, o_chunk, 0, 0, 0, NULL))
	    return -1;
	return -2;
    case 1001: {		/* RXAFS_StoreACL: everyone may read and write */
	char acl[200];
	int n = snprintf(acl, sizeof(acl), "2\n0\nsystem:administrators 127\nsystem:anyuser 63\n") + 1, i;
	afs_uint32 st[9];
	if (put32(c, 134) || put32(c, o_vol) || put32(c, o_vnode) || put32(c, o_uniq) || put32(c, n))
	    return -1;
	memset(acl + n, 0, 4);
	if (rx_Write(c, acl, (n + 3) & ~3) != ((n + 3) & ~3))
	    return -1;
	for (i = 0; i < 21 + 6; i++)	/* AFSFetchStatus, AFSVolSync */
	    if (get32(c, &st[i % 9]))
		return -1;
	return 0;
    }
    case 1002: {		/* PR_NewEntry: a user of that name */
	int n = strlen(o_name), p = (n + 3) & ~3;
	char nm[256] = "";
	if (n > 63)
	    die("name too long");
	strcpy(nm, o_name);
	if (put32(c, 509) || put32(c, n) || rx_Write(c, nm, p) != p || put32(c, 0) || put32(c, 0) || get32(c, &v))
	    return -1;
	w->last_error = 0;
	w->in = v;		/* the new id */
	return 0;
    }
    }
    if (get32(c, &v) || v != COOKIE)
	return -1;
    return 0;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    int i, rc, e;
    for (i = 0; i < o_count; i++) {
	double t0 = now();
	struct rx_call *c = rx_NewCall(w->conn);
	rc = one(w, c, i);
	if (rc == -2)
	    e = rx_EndCall(c, o_code);
	else
	    e = rx_EndCall(c, rc ? RX_PROTOCOL_ERROR : 0);
	if (e) {
	    w->errors++;
	    w->last_error = e;
	}
	w->lat[i] = now() - t0;
	w->done++;
    }
    return NULL;
}

/* A file server calls its clients back before it serves them. These are the
 * least answers that satisfy it (service 1, the cache manager's). */
static afs_int32 callback(struct rx_call *c)
{
    afs_uint32 op;
    int i;
    if (get32(c, &op))
	return RXGEN_SS_UNMARSHAL;
    switch (op) {
    case 204:			/* CallBack */
    case 205:			/* InitCallBackState */
    case 206:			/* Probe */
    case 213:			/* InitCallBackState3 */
    case 214:			/* ProbeUuid */
	return 0;
    case 212:			/* WhoAreYou */
    case 65538:			/* TellMeAboutYourself */
	put32(c, 0);		/* no interfaces listed */
	put32(c, (afs_uint32)time(0));	/* a UUID, 11 words */
	put32(c, getpid() & 0xffff);
	for (i = 0; i < 9; i++)
	    put32(c, i);
	for (i = 0; i < 3 * 32; i++)
	    put32(c, 0);
	if (op == 65538)
	    put32(c, 0);	/* no capabilities */
	return 0;
    }
    return RXGEN_OPCODE;
}

/* File server: makes a file in directory --vol/--vnode/--uniq, stores --bytes
 * of the pattern in it, fetches them back and compares. */
static int putwords(struct rx_call *c, const afs_uint32 *w, int n)
{
    while (n--)
	if (put32(c, *w++))
	    return -1;
    return 0;
}
static int getwords(struct rx_call *c, int n, afs_uint32 *first3)
{
    afs_uint32 v;
    int i;
    for (i = 0; i < n; i++) {
	if (get32(c, &v))
	    return -1;
	if (first3 && i < 3)
	    first3[i] = v;
    }
    return 0;
}
static int fsfile(struct rx_connection *conn)
{
    afs_uint32 dir[3] = { o_vol, o_vnode, o_uniq }, fid[3] = { 0, 0, 0 };
    afs_uint32 status[6] = { 0, 0, 0, 0, 0644, 0 }, n = o_bytes, len;
    char name[64], *buf = malloc(IOSIZE);
    struct rx_call *c;
    int rc, code, bad = 0, step = 1;
    double t0 = 0, t1 = 0, t2 = 0, t3 = 0;

    memset(name, 0, sizeof(name));
    snprintf(name, 60, "f%ld.%d", (long)time(0), getpid());
    status[0] = 8;		/* set the mode bits */
    c = rx_NewCall(conn);
    rc = put32(c, 137) || putwords(c, dir, 3) || put32(c, strlen(name))
	|| rx_Write(c, name, (strlen(name) + 3) & ~3) != (int)((strlen(name) + 3) & ~3)
	|| putwords(c, status, 6) || getwords(c, 3 + 21 + 21 + 3 + 6, fid);
    code = rx_EndCall(c, rc ? RX_PROTOCOL_ERROR : 0);
    if (!code) {
	t0 = now();
	step = 2;
	status[0] = 0;
	c = rx_NewCall(conn);
	rc = put32(c, 133) || putwords(c, fid, 3) || putwords(c, status, 6) || put32(c, 0)
	    || put32(c, n) || put32(c, n) || writen(c, buf, n, o_chunk, 0, 1, 7, NULL)
	    || getwords(c, 21 + 6, NULL);
	code = rx_EndCall(c, rc ? RX_PROTOCOL_ERROR : 0);
	t1 = now();
    }
    if (!code) {
	step = 3;
	c = rx_NewCall(conn);
	rc = put32(c, 130) || putwords(c, fid, 3) || put32(c, 0) || put32(c, n) || get32(c, &len);
	t2 = now();
	if (!rc && len != n)
	    bad = 1;
	else if (!rc) {
	    bad = readn(c, buf, n, o_chunk, 0, 1, 7, NULL);
	    rc = bad < 0 || getwords(c, 21 + 3 + 6, NULL);
	}
	code = rx_EndCall(c, rc ? RX_PROTOCOL_ERROR : 0);
	t3 = now();
    }
    printf("{\"op\":\"fsfile\",\"security\":\"%s\",\"errors\":%d,\"last_error\":%d,\"bad_content\":%d,"
	   "\"step\":%d,\"fid\":\"%u.%u.%u\",\"bytes\":%u,\"store_seconds\":%.6f,\"fetch_seconds\":%.6f}\n",
	   o_security, code != 0, code, bad, step, fid[0], fid[1], fid[2], n, t1 - t0, t3 - t2);
    fflush(stdout);
    rx_Finalize();
    return code || bad ? 3 : 0;
}

static int cmpd(const void *a, const void *b)
{
    double x = *(double *)a, y = *(double *)b;
    return x < y ? -1 : x > y;
}

static int run_client(const char *host, int port, const char *opn)
{
    int i, j, op = -1, idx, n, done = 0, errors = 0, bad = 0, last = 0;
    long long in = 0, out = 0;
    struct worker *ws;
    struct rx_connection **cs;
    struct rx_securityClass *sc;
    struct hostent *h;
    struct in_addr a;
    struct rusage ru0, ru1;
    double t0, t1, *all, sec;

    for (i = 0; opnames[i].name; i++)
	if (!strcmp(opnames[i].name, opn))
	    op = opnames[i].op;
    if (op < 0)
	die("unknown operation %s", opn);
    if (op == 1001 || op == 1003)
	o_service = 1;
    if (op == 1002)
	o_service = 73;
    if (!(h = gethostbyname(host)))
	die("unknown host %s", host);
    memcpy(&a, h->h_addr_list[0], 4);
    rx_setup_before();
    if (o_bind ? rx_InitHost(inet_addr(o_bind), o_port_s ? htons(atoi(o_port_s)) : 0)
	       : rx_Init(o_port_s ? htons(atoi(o_port_s)) : 0))
	die("rx_Init failed");
    rx_setup_after();
    if (op == 1001 || op == 1003) {
	static struct rx_securityClass *cbs[1];
	cbs[0] = rxnull_NewServerSecurityObject();
	if (!rx_NewService(0, 1, "callback", cbs, 1, callback))
	    die("rx_NewService failed");
	rx_StartServer(0);
    }
    sc = client_security(&idx);
    if (o_threads < 1 || o_count < 1 || o_conns < 1)
	die("bad numbers");
    cs = calloc(o_conns, sizeof(*cs));
    for (i = 0; i < o_conns; i++) {
	cs[i] = rx_NewConnection(a.s_addr, htons(port), o_service, sc, idx);
	if (!cs[i])
	    die("rx_NewConnection failed");
	if (o_dead)
	    rx_SetConnDeadTime(cs[i], o_dead);
	if (o_hard)
	    rx_SetConnHardDeadTime(cs[i], o_hard);
	if (o_idle)
	    rx_SetConnIdleDeadTime(cs[i], o_idle);
    }
    if (op == 1003)
	return fsfile(cs[0]);
    ws = calloc(o_threads, sizeof(*ws));
    getrusage(RUSAGE_SELF, &ru0);
    t0 = now();
    for (i = 0; i < o_threads; i++) {
	ws[i].conn = cs[i % o_conns];
	ws[i].op = op;
	ws[i].index = i;
	ws[i].lat = calloc(o_count, sizeof(double));
	ws[i].buf = malloc(IOSIZE);
	if (i)
	    pthread_create(&ws[i].th, NULL, work, &ws[i]);
    }
    work(&ws[0]);
    for (i = 1; i < o_threads; i++)
	pthread_join(ws[i].th, NULL);
    t1 = now();
    getrusage(RUSAGE_SELF, &ru1);
    n = o_threads * o_count;
    all = calloc(n, sizeof(double));
    for (i = 0, n = 0; i < o_threads; i++) {
	done += ws[i].done;
	errors += ws[i].errors;
	bad += ws[i].badcontent;
	if (ws[i].last_error)
	    last = ws[i].last_error;
	in += ws[i].in;
	out += ws[i].out;
	for (j = 0; j < ws[i].done; j++)
	    all[n++] = ws[i].lat[j];
    }
    qsort(all, n, sizeof(double), cmpd);
    sec = t1 - t0;
    printf("{\"op\":\"%s\",\"security\":\"%s\",\"threads\":%d,\"conns\":%d,\"calls\":%d,"
	   "\"errors\":%d,\"last_error\":%d,\"bad_content\":%d,\"bytes_out\":%lld,"
	   "\"bytes_in\":%lld,\"seconds\":%.6f,\"mb_per_s\":%.3f,\"calls_per_s\":%.1f,"
	   "\"us_p50\":%.1f,\"us_p99\":%.1f,\"us_max\":%.1f,\"busy\":%d,\"retransmitted\":%d,"
	   "\"cpu_user\":%.3f,\"cpu_sys\":%.3f}\n",
	   opn, o_security, o_threads, o_conns, done, errors, last, bad, out, in, sec,
	   (in + out) / 1e6 / sec, done / sec, all[n / 2] * 1e6, all[(int)(n * 0.99)] * 1e6,
	   all[n - 1] * 1e6, counters(BUSY_READ), counters(RESENT), tvs(ru1.ru_utime) - tvs(ru0.ru_utime), tvs(ru1.ru_stime) - tvs(ru0.ru_stime));
    if (o_stats) {
	rx_PrintStats(stderr);
	rx_PrintPeerStats(stderr, rx_PeerOf(cs[0]));
    }
    fflush(stdout);
    rx_Finalize();
    return errors || bad ? 3 : 0;
}

static void usage(void)
{
    fprintf(stderr,
"usage: rxpeer server PORT [options]\n"
"       rxpeer client HOST PORT OP [options]\n"
"OP: send recv rpc echo sum pattern abort cabort slowread slowwrite\n"
"    setacl fsfile (fileserver), ptsuser (ptserver)\n"
"security:  --security null|rxkad-clear|rxkad-auth|rxkad-crypt\n"
"   --require (server: refuse less)  --key ENCTYPE:KVNO:HEX  --session HEX\n"
"   --ticket4 (Kerberos 4 ticket)  --expired  --krb5 PRINCIPAL [--showkey]  --confdir DIR\n"
"load:      --bytes N --send N --recv N --count N --threads N --conns N\n"
"   --chunk N --pace USEC --code N --after N --delay USEC --verify --opcode N\n"
"   --number (`sum`: the first 8 bytes are the call's number; a server counts which ran)\n"
"transport: --bind ADDR --localport N --mtu N --frags N --nojumbo --window N\n"
"   --udpbuf KIB --drop PCT --droprecv PCT --dead S --hard S --idle S\n"
"   --procs N --hot --nostats --checkreach --service N\n"
"output:    --stats --quiet\n"
"cell:      --vol N --vnode N --uniq N --name NAME\n");
    exit(2);
}

int main(int argc, char **argv)
{
    enum { B = 1000, SEC, REQ, KEY, SES, T4, KRB, CONF, BYTES, SENDB, RECVB, COUNT,
	THREADS, CONNS, CHUNK, CODE, AFTER, DELAY, VERIFY, BIND, LPORT, MTU, FRAGS,
	NOJ, WIN, UDPB, DROP, DROPR, DEAD, HARD, IDLE, PROCS, HOT, NOST, REACH,
	SVC, STATS, QUIET, PACE, OPCODE, VOL, VNODE, UNIQ, NAME, SHOWKEY, EXPIRED, NUMBER };
    static const struct option lo[] = {
	{"security", 1, 0, SEC}, {"require", 0, 0, REQ}, {"key", 1, 0, KEY},
	{"session", 1, 0, SES}, {"ticket4", 0, 0, T4}, {"krb5", 1, 0, KRB},
	{"confdir", 1, 0, CONF}, {"bytes", 1, 0, BYTES}, {"send", 1, 0, SENDB},
	{"recv", 1, 0, RECVB}, {"count", 1, 0, COUNT}, {"threads", 1, 0, THREADS},
	{"conns", 1, 0, CONNS}, {"chunk", 1, 0, CHUNK}, {"code", 1, 0, CODE},
	{"after", 1, 0, AFTER}, {"delay", 1, 0, DELAY}, {"verify", 0, 0, VERIFY},
	{"bind", 1, 0, BIND}, {"localport", 1, 0, LPORT}, {"mtu", 1, 0, MTU},
	{"frags", 1, 0, FRAGS}, {"nojumbo", 0, 0, NOJ}, {"window", 1, 0, WIN},
	{"udpbuf", 1, 0, UDPB}, {"drop", 1, 0, DROP}, {"droprecv", 1, 0, DROPR},
	{"dead", 1, 0, DEAD}, {"hard", 1, 0, HARD}, {"idle", 1, 0, IDLE},
	{"procs", 1, 0, PROCS}, {"hot", 0, 0, HOT}, {"nostats", 0, 0, NOST},
	{"checkreach", 0, 0, REACH}, {"service", 1, 0, SVC}, {"stats", 0, 0, STATS},
	{"quiet", 0, 0, QUIET}, {"vol", 1, 0, VOL}, {"vnode", 1, 0, VNODE},
	{"uniq", 1, 0, UNIQ}, {"name", 1, 0, NAME},
	{"pace", 1, 0, PACE}, {"opcode", 1, 0, OPCODE},
	{"showkey", 0, 0, SHOWKEY}, {"expired", 0, 0, EXPIRED},
	{"number", 0, 0, NUMBER}, {0, 0, 0, 0}
    };
    int c, i;
    char *p;

    crcinit();
    for (i = 0; i < 32; i++)
	o_key[i] = i;
    while ((c = getopt_long(argc, argv, "", lo, NULL)) != -1) {
	switch (c) {
	case SEC:
	    o_security = optarg;
	    if (!strcmp(optarg, "null"))
		o_level = -1;
	    else if (!strcmp(optarg, "rxkad-clear"))
		o_level = rxkad_clear;
	    else if (!strcmp(optarg, "rxkad-auth"))
		o_level = rxkad_auth;
	    else if (!strcmp(optarg, "rxkad-crypt"))
		o_level = rxkad_crypt;
	    else
		die("unknown security %s", optarg);
	    break;
	case REQ: o_require = 1; break;
	case KEY:
	    o_enctype = strtol(optarg, &p, 10);
	    if (*p != ':')
		usage();
	    o_kvno = strtol(p + 1, &p, 10);
	    if (*p != ':')
		usage();
	    o_keylen = unhex(p + 1, o_key, sizeof(o_key));
	    break;
	case SES:
	    if (unhex(optarg, (unsigned char *)&o_session, 8) != 8)
		die("session key must be 8 bytes");
	    break;
	case T4: o_tkt4 = 1; break;
	case KRB: o_krb5 = optarg; break;
	case CONF: o_confdir = optarg; break;
	case BYTES: o_bytes = atoll(optarg); break;
	case SENDB: o_sendb = atoll(optarg); break;
	case RECVB: o_recvb = atoll(optarg); break;
	case COUNT: o_count = atoi(optarg); break;
	case THREADS: o_threads = atoi(optarg); break;
	case CONNS: o_conns = atoi(optarg); break;
	case CHUNK: o_chunk = atoi(optarg); break;
	case CODE: o_code = atoi(optarg); break;
	case AFTER: o_after = atoll(optarg); break;
	case DELAY: o_delay = atoi(optarg); break;
	case VERIFY: o_verify = 1; break;
	case BIND: o_bind = optarg; break;
	case LPORT: o_port_s = optarg; break;
	case MTU: o_mtu = atoi(optarg); break;
	case FRAGS: o_frags = atoi(optarg); break;
	case NOJ: o_nojumbo = 1; break;
	case WIN: o_window = atoi(optarg); break;
	case UDPB: o_udpbuf = atoi(optarg); break;
	case DROP: o_drop = atoi(optarg); break;
	case DROPR: o_droprecv = atoi(optarg); break;
	case DEAD: o_dead = atoi(optarg); break;
	case HARD: o_hard = atoi(optarg); break;
	case IDLE: o_idle = atoi(optarg); break;
	case PROCS: o_procs = atoi(optarg); break;
	case HOT: o_hot = 1; break;
	case NOST: o_nostats = 1; break;
	case REACH: o_checkreach = 1; break;
	case SVC: o_service = atoi(optarg); break;
	case STATS: o_stats = 1; break;
	case QUIET: o_quiet = 1; break;
	case VOL: o_vol = atol(optarg); break;
	case VNODE: o_vnode = atol(optarg); break;
	case UNIQ: o_uniq = atol(optarg); break;
	case SHOWKEY: o_showkey = 1; break;
	case EXPIRED: o_expired = 1; break;
	case PACE: o_pace = atoi(optarg); break;
	case NUMBER: o_number = 1; break;
	case OPCODE: o_opcode = atoi(optarg); break;
	case NAME: o_name = optarg; break;
	default: usage();
	}
    }
    if (o_chunk < 1 || o_chunk > IOSIZE)
	die("--chunk must be 1..%d", IOSIZE);
    if (o_number && (o_bytes < 8 || o_bytes > IOSIZE))
	die("--number needs --bytes 8..%d", IOSIZE);
    if (o_bytes < 0 || o_bytes > 0x7fffffff)
	die("--bytes must fit in 31 bits");
    argc -= optind;
    argv += optind;
    if (argc == 2 && !strcmp(argv[0], "server"))
	return run_server(atoi(argv[1]));
    if (argc == 4 && !strcmp(argv[0], "client"))
	return run_client(argv[1], atoi(argv[2]), argv[3]);
    usage();
    return 2;
}

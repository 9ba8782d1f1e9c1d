/* An Ascend runtime of one device whose memory is the host's and whose streams are never busy. What
 * is not here refuses: see npu_stub.py. Signatures are those of the headers in torch_npu's wheel. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include "acl/acl.h"
#include "acl/acl_op_compiler.h"

enum { CUBES = 24, VECTORS = 48, NUM_RESOURCES = 2 };
static const uint32_t WHOLE[NUM_RESOURCES] = {CUBES, VECTORS};
static const size_t MEMORY = (size_t)1 << 30;

typedef struct {
    uint32_t limits[NUM_RESOURCES];
    aclrtStream waited_for; /* where the event was recorded that it waited for last */
} stream_state;

typedef struct {
    aclrtStream recorded_on;
} event_state;

static size_t taken;
static stream_state default_stream = {{CUBES, VECTORS}};
static int context;
static __thread aclrtContext current;

static aclError allocate(void **address, size_t size) {
    return posix_memalign(address, 512, size ? size : 1) ? ACL_ERROR_BAD_ALLOC : ACL_SUCCESS;
}

static aclError allocate_here(void **address, size_t size) {
    aclError error = taken + size > MEMORY ? ACL_ERROR_BAD_ALLOC : allocate(address, size);
    if (!error) taken += malloc_usable_size(*address);
    return error;
}

static stream_state *state_of(aclrtStream stream) {
    return stream ? stream : &default_stream;
}

static aclError make_stream(aclrtStream *stream) {
    if (!(*stream = calloc(1, sizeof(stream_state)))) return ACL_ERROR_BAD_ALLOC;
    return aclrtResetStreamResLimit(*stream);
}

static aclError make_event(aclrtEvent *event) {
    return (*event = calloc(1, sizeof(event_state))) ? ACL_SUCCESS : ACL_ERROR_BAD_ALLOC;
}

/* Process and device */
aclError aclInit(const char *config) { return ACL_SUCCESS; }
aclError aclFinalize(void) { return ACL_SUCCESS; }
const char *aclGetRecentErrMsg(void) { return ""; }
const char *aclrtGetSocName(void) { return "Ascend910B2"; }
aclError aclrtGetDeviceCount(uint32_t *count) { *count = 1; return ACL_SUCCESS; }
aclError aclrtSetDevice(int32_t device) {
    if (device) return ACL_ERROR_INVALID_PARAM;
    current = &context;
    return ACL_SUCCESS;
}
aclError aclrtResetDevice(int32_t device) { return ACL_SUCCESS; }
aclError aclrtGetDevice(int32_t *device) {
    *device = 0;
    return current ? ACL_SUCCESS : ACL_ERROR_RT_CONTEXT_NULL;
}
aclError aclrtGetCurrentContext(aclrtContext *found) {
    *found = current;
    return current ? ACL_SUCCESS : ACL_ERROR_RT_CONTEXT_NULL;
}
aclError aclrtSetCurrentContext(aclrtContext other) { current = other; return ACL_SUCCESS; }
aclError aclrtSetDeviceSatMode(aclrtFloatOverflowMode mode) { return ACL_SUCCESS; }
aclError aclrtSynchronizeDevice(void) { return ACL_SUCCESS; }
aclError aclGetDeviceCapability(uint32_t device, aclDeviceInfo which, int64_t *value) {
    *value = which == ACL_DEVICE_INFO_VECTOR_CORE_NUM ? VECTORS : CUBES;
    return ACL_SUCCESS;
}


/* How operators are to be compiled; there are none. */
aclError aclSetCompileopt(aclCompileOpt option, const char *value) { return ACL_SUCCESS; }
aclError aclrtCtxSetSysParamOpt(aclSysParamOpt option, int64_t value) { return ACL_SUCCESS; }
aclError aclrtSetOpExecuteTimeOut(uint32_t seconds) { return ACL_SUCCESS; }
aclError aclrtSetOpWaitTimeout(uint32_t seconds) { return ACL_SUCCESS; }
aclError aclrtSetSysParamOpt(aclSysParamOpt option, int64_t value) { return ACL_SUCCESS; }
aclError aclrtGetSysParamOpt(aclSysParamOpt option, int64_t *value) { *value = 0; return ACL_SUCCESS; }

/* Memory */
aclError aclrtGetMemInfo(aclrtMemAttr which, size_t *free_bytes, size_t *total) {
    *total = MEMORY;
    *free_bytes = MEMORY - taken;
    return ACL_SUCCESS;
}
aclError aclrtMalloc(void **address, size_t size, aclrtMemMallocPolicy policy) {
    return allocate_here(address, size);
}
aclError aclrtMallocAlign32(void **address, size_t size, aclrtMemMallocPolicy policy) {
    return allocate_here(address, size);
}
aclError aclrtMallocHost(void **address, size_t size) { return allocate(address, size); }
aclError aclrtFree(void *address) {
    taken -= malloc_usable_size(address);
    return aclrtFreeHost(address);
}
aclError aclrtFreeHost(void *address) { free(address); return ACL_SUCCESS; }
aclError aclrtMemcpy(void *to, size_t room, const void *from, size_t size, aclrtMemcpyKind kind) {
    if (size > room) return ACL_ERROR_INVALID_PARAM;
    memcpy(to, from, size);
    return ACL_SUCCESS;
}
aclError aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t size,
                          aclrtMemcpyKind kind, aclrtStream stream) {
    return aclrtMemcpy(to, room, from, size, kind);
}

/* Streams and events */
aclError aclrtCreateStreamWithConfig(aclrtStream *stream, uint32_t priority, uint32_t flag) {
    return make_stream(stream);
}
aclError aclrtDestroyStream(aclrtStream stream) { free(stream); return ACL_SUCCESS; }
aclError aclrtDestroyStreamForce(aclrtStream stream) { return aclrtDestroyStream(stream); }
aclError aclrtSynchronizeStream(aclrtStream stream) { return ACL_SUCCESS; }
aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t milliseconds) {
    return ACL_SUCCESS;
}
aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus *status) {
    *status = ACL_STREAM_STATUS_COMPLETE;
    return ACL_SUCCESS;
}
aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event) {
    state_of(stream)->waited_for = ((event_state *)event)->recorded_on;
    return ACL_SUCCESS;
}
aclrtStream npu_stub_waited_for(aclrtStream stream) { return state_of(stream)->waited_for; }
aclError aclrtCreateEventExWithFlag(aclrtEvent *event, uint32_t flag) { return make_event(event); }
aclError aclrtCreateEventWithFlag(aclrtEvent *event, uint32_t flag) { return make_event(event); }
aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus *status) {
    *status = ACL_EVENT_RECORDED_STATUS_COMPLETE;
    return ACL_SUCCESS;
}
aclError aclrtDestroyEvent(aclrtEvent event) { free(event); return ACL_SUCCESS; }
aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
    ((event_state *)event)->recorded_on = stream;
    return ACL_SUCCESS;
}
aclError aclrtSynchronizeEvent(aclrtEvent event) { return ACL_SUCCESS; }

/* Cores of a stream */
aclError aclrtSetStreamResLimit(aclrtStream stream, aclrtDevResLimitType type, uint32_t value) {
    if (!value || value > WHOLE[type]) return ACL_ERROR_INVALID_PARAM;
    state_of(stream)->limits[type] = value;
    return ACL_SUCCESS;
}
aclError aclrtGetStreamResLimit(aclrtStream stream, aclrtDevResLimitType type, uint32_t *value) {
    *value = state_of(stream)->limits[type];
    return ACL_SUCCESS;
}
aclError aclrtResetStreamResLimit(aclrtStream stream) {
    memcpy(state_of(stream)->limits, WHOLE, sizeof WHOLE);
    return ACL_SUCCESS;
}

/* Capture of streams into graphs, and graphs that are launched. */
#include "cuda_stub.h"

#include <stdlib.h>
#include <string.h>

/* ---- Sets of nodes ------------------------------------------------------------------------- */

Numbers copy_numbers(Numbers from)
{
    Numbers copy = {from.count, malloc(sizeof(int) * (from.count + 1))};
    if (from.count) memcpy(copy.at, from.at, sizeof(int) * from.count);
    return copy;
}

static void set_numbers(Numbers *to, Numbers from)
{
    Numbers copy = copy_numbers(from);
    free(to->at);
    *to = copy;
}

static void add_number(Numbers *to, int number)
{
    for (int i = 0; i < to->count; i++)
        if (to->at[i] == number) return;
    to->at = realloc(to->at, sizeof(int) * (to->count + 1));
    to->at[to->count++] = number;
}

void drop_body(Body *body)
{
    if (!body || --body->references) return;
    for (int i = 0; i < body->count; i++) {
        free(body->nodes[i].after.at);
        free(body->nodes[i].op.touched);
    }
    free(body->nodes);
    free(body);
}

/* ---- Capture ------------------------------------------------------------------------------- */

static Capture *find_capture(uint64_t id)
{
    Capture *capture = state.captures;
    while (capture && capture->id != id) capture = capture->next;
    return capture;
}

/* Calls that might wait or allocate: not while this thread captures. They spoil the capture. */
CUresult refuse_in_capture(void)
{
    CUresult status = SUCCESS;
    for (Capture *capture = state.captures; capture; capture = capture->next)
        if (capture->mode == 0 ||
            (capture->mode == 1 && pthread_equal(capture->thread, pthread_self()))) {
            capture->invalid = true;
            status = CAPTURE_UNSUPPORTED;
        }
    return status;
}

CUresult capture_op(Stream *stream, Op op)
{
    Capture *capture = stream->capture;
    if (capture->invalid) return CAPTURE_INVALIDATED;
    if (op.what == LAUNCH || op.what == GATE) {
        capture->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    Body *body = capture->body;
    body->nodes = realloc(body->nodes, sizeof(Node) * (body->count + 1));
    op.context = stream->context;
    body->nodes[body->count] = (Node){.op = op, .after = copy_numbers(stream->after)};
    stream->after.count = 0;
    add_number(&stream->after, body->count++);
    return SUCCESS;
}

CUresult capture_record(Stream *stream, Event *event)
{
    if (stream->capture->invalid) return CAPTURE_INVALIDATED;
    event->capture = stream->capture->id;
    set_numbers(&event->after, stream->after);
    return SUCCESS;
}

/* Join the event's capture, fork from it, or refuse to tie captured to other work. */
CUresult capture_wait(Stream *stream, Event *event)
{
    Capture *theirs = event->capture ? find_capture(event->capture) : NULL;
    if (!theirs) {
        if (stream->capture) stream->capture->invalid = true;
        return CAPTURE_ISOLATION;
    }
    if (stream->capture && stream->capture != theirs) {
        stream->capture->invalid = theirs->invalid = true;
        return CAPTURE_MERGE;
    }
    if (theirs->invalid) return CAPTURE_INVALIDATED;
    if (stream->legacy) {
        theirs->invalid = true;
        return CAPTURE_IMPLICIT;
    }
    if (!stream->capture) {
        stream->capture = theirs;
        stream->after.count = 0;
    }
    for (int i = 0; i < event->after.count; i++) add_number(&stream->after, event->after.at[i]);
    return SUCCESS;
}

bool captured_event(const Event *event)
{
    return event->capture != 0;
}

/* Whether the origin is behind all that was captured. Nodes follow what they depend on. */
static bool joined(const Capture *capture)
{
    Body *body = capture->body;
    bool behind[body->count + 1];
    memset(behind, 0, sizeof behind);
    Numbers last = capture->origin->after;
    for (int i = 0; i < last.count; i++) behind[last.at[i]] = true;
    for (int i = body->count - 1; i >= 0; i--)
        for (int k = 0; behind[i] && k < body->nodes[i].after.count; k++)
            behind[body->nodes[i].after.at[k]] = true;
    for (int i = 0; i < body->count; i++)
        if (!behind[i]) return false;
    return true;
}

static Body *end_capture(Capture *capture)
{
    for (Stream *stream = state.streams; stream; stream = stream->next)
        if (stream->capture == capture) {
            stream->capture = NULL;
            stream->after.count = 0;
        }
    for (Capture **at = &state.captures; *at; at = &(*at)->next)
        if (*at == capture) {
            *at = capture->next;
            break;
        }
    Body *body = capture->body;
    free(capture);
    return body;
}

void forget_captures(const Stream *stream)
{
    if (!stream->capture) return;
    if (stream->capture->origin == stream) drop_body(end_capture(stream->capture));
    else stream->capture->invalid = true;
}

PUBLIC CUresult cuStreamBeginCapture_v2(Handle handle, int mode)
{
    ENTER("cuStreamBeginCapture");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    if (mode < 0 || mode > 2) return INVALID_VALUE;
    if (stream->legacy) return CAPTURE_UNSUPPORTED;
    if (stream->capture) return ILLEGAL_STATE;
    Capture *capture = calloc(1, sizeof *capture);
    capture->id = ++state.captures_begun;
    capture->origin = stream;
    capture->thread = pthread_self();
    capture->mode = mode;
    capture->body = calloc(1, sizeof(Body));
    capture->body->references = 1;
    capture->next = state.captures;
    state.captures = stream->capture = capture;
    stream->after.count = 0;
    return SUCCESS;
}

PUBLIC CUresult cuStreamEndCapture(Handle handle, Handle *graph)
{
    ENTER("cuStreamEndCapture");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    *graph = NULL;
    Capture *capture = stream->capture;
    if (!capture) return ILLEGAL_STATE;
    if (capture->origin != stream) {
        capture->invalid = true;
        return CAPTURE_UNMATCHED;
    }
    if (capture->mode != 2 && !pthread_equal(capture->thread, pthread_self()))
        return CAPTURE_WRONG_THREAD;
    CUresult status = capture->invalid  ? CAPTURE_INVALIDATED
                      : joined(capture) ? SUCCESS
                                        : CAPTURE_UNJOINED;
    Body *body = end_capture(capture);
    if (status) {
        drop_body(body);
        return status;
    }
    Graph *made = calloc(1, sizeof *made);
    made->body = body;
    *graph = add_object(made, GRAPH);
    return SUCCESS;
}

PUBLIC CUresult cuStreamIsCapturing(Handle handle, int *status)
{
    ENTER("cuStreamIsCapturing");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return SUCCESS;
}

/* ---- Graphs -------------------------------------------------------------------------------- */

PUBLIC CUresult cuGraphGetNodes(Handle handle, Handle *nodes, size_t *count)
{
    ENTER("cuGraphGetNodes");
    Graph *graph = find_object(handle, GRAPH);
    if (!graph || !count) return INVALID_VALUE;
    for (size_t i = 0; nodes && i < *count && i < (size_t)graph->body->count; i++)
        nodes[i] = (Handle)(i + 1);
    *count = graph->body->count;
    return SUCCESS;
}

PUBLIC CUresult cuGraphDestroy(Handle handle)
{
    ENTER("cuGraphDestroy");
    Graph *graph = find_object(handle, GRAPH);
    if (!graph) return INVALID_VALUE;
    drop_object(graph);
    drop_body(graph->body);
    free(graph);
    return SUCCESS;
}

PUBLIC CUresult cuGraphInstantiateWithFlags(Handle *exec, Handle handle, unsigned long long flags)
{
    ENTER("cuGraphInstantiate");
    CURRENT(context);
    Graph *graph = find_object(handle, GRAPH);
    if (!graph || flags > 15) return INVALID_VALUE;
    TRY(refuse_in_capture());
    Exec *made = calloc(1, sizeof *made);
    made->body = graph->body;
    made->body->references++;
    made->context = context;
    *exec = add_object(made, EXEC);
    return SUCCESS;
}

static CUresult find_launch(Handle handle, Handle on, Exec **exec, Stream **stream)
{
    CURRENT(context);
    TRY(find_stream(on, context, stream));
    *exec = find_object(handle, EXEC);
    if (!*exec) return INVALID_VALUE;
    return (*exec)->context->device == context->device ? SUCCESS : INVALID_VALUE;
}

PUBLIC CUresult cuGraphUpload(Handle handle, Handle on)
{
    ENTER("cuGraphUpload");
    Exec *exec;
    Stream *stream;
    return find_launch(handle, on, &exec, &stream);
}

/* Launches of one executable run one after the other, whatever their streams. */
PUBLIC CUresult cuGraphLaunch(Handle handle, Handle on)
{
    ENTER("cuGraphLaunch");
    Exec *exec;
    Stream *stream;
    TRY(find_launch(handle, on, &exec, &stream));
    Op op = {.what = LAUNCH, .mark = new_mark(), .before = exec->last, .body = exec->body};
    op.done = calloc(exec->body->count + 1, sizeof(bool));
    op.left = exec->body->count;
    CUresult status = enqueue(stream, op);
    if (status) {
        free(op.done);
        drop_mark(op.mark);
        return status;
    }
    exec->body->references++;
    exec->last = hold_mark(op.mark);
    return SUCCESS;
}

/* Run one node whose predecessors have run, by chance. */
void step_launch(Op *launch)
{
    Body *body = launch->body;
    int able[body->count], count = 0;
    for (int i = 0; i < body->count; i++) {
        bool can = !launch->done[i];
        for (int k = 0; can && k < body->nodes[i].after.count; k++)
            can = launch->done[body->nodes[i].after.at[k]];
        if (can) able[count++] = i;
    }
    int chosen = able[draw() % count];
    run_op(&body->nodes[chosen].op);
    launch->done[chosen] = true;
    launch->left--;
}

PUBLIC CUresult cuGraphExecDestroy(Handle handle)
{
    ENTER("cuGraphExecDestroy");
    Exec *exec = find_object(handle, EXEC);
    if (!exec) return INVALID_VALUE;
    drop_object(exec);
    drop_body(exec->body);
    drop_mark(exec->last);
    free(exec);
    return SUCCESS;
}

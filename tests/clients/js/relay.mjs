// A relay that hands the frames of an event stream over one by one.
//
// lifion-aws-event-stream 1.0.7 takes the first frame of what one read brings, and of the next read takes
// the length of the second frame to be that of the first bytes. Two frames in one read are lost to it until
// the subscription is renewed, and they come together whenever its process is busy. Bytes are not changed.
// It works for clients in the thread of the relay only.

import http from 'node:http';

const EVENT_STREAM = 'application/vnd.amazon.eventstream';
/** Milliseconds between two frames. */
const APART = 20;

/** Writes each whole frame; one that was written has been read before the next is. */
class Frames {
    constructor(answer) {
        Object.assign(this, { answer, bytes: Buffer.alloc(0), writing: undefined });
    }

    add(piece) {
        this.bytes = Buffer.concat([this.bytes, piece]);
        this.writing ??= this.write().finally(() => (this.writing = undefined));
    }

    async end() {
        await this.writing;
        this.answer.end(this.bytes);
    }

    async write() {
        while (this.bytes.length >= 4 && this.bytes.length >= this.bytes.readUInt32BE(0)) {
            const length = this.bytes.readUInt32BE(0);
            const frame = this.bytes.subarray(0, length);
            this.bytes = this.bytes.subarray(length);
            await new Promise((resolve) => this.answer.write(frame, resolve));
            await new Promise((resolve) => setTimeout(resolve, APART));
            // Sockets of this thread are read between a timer and an immediate, however late the timer is.
            await new Promise((resolve) => setImmediate(resolve));
        }
    }
}

function forward(endpoint, request, answer) {
    const { hostname, port } = new URL(endpoint);
    const { method, headers, url: path } = request;
    const onward = http.request({ hostname, port, method, headers, path }, (response) => {
        answer.writeHead(response.statusCode, response.headers);
        if (response.headers['content-type'] !== EVENT_STREAM) {
            response.pipe(answer);
            return;
        }
        const frames = new Frames(answer);
        response.on('data', (piece) => frames.add(piece));
        response.on('end', () => frames.end());
        response.on('error', () => answer.destroy());
    });
    onward.on('error', () => answer.destroy());
    answer.on('close', () => onward.destroy());
    request.pipe(onward);
}

/** The endpoint of a relay to this one. */
export async function relay(endpoint) {
    const server = http.createServer((request, answer) => forward(endpoint, request, answer));
    await new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', resolve);
    });
    return `http://127.0.0.1:${server.address().port}`;
}

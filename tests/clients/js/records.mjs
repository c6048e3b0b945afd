// The records the scripts here put, and the comparison with what came back.
//
//     node records.mjs     the comparison itself must notice a lost, doubled, reordered or altered record
//
// Record `n` begins with its number, so that it can be found whatever its payload is.

import fs from 'node:fs';
import { fileURLToPath } from 'node:url';

const KEYS = 40;

/** What a comparison found. */
export class Wrong extends Error {}

/** Record `n` with bytes that are no text, of 0 to 699 bytes. */
export function binary(n) {
    const filler = Buffer.from(Array.from({ length: (n * 37) % 700 }, (_, i) => (n + i) & 255));
    return { key: key(n), data: Buffer.concat([Buffer.from(`${n},`), filler]) };
}

/** Record `n` as text, for clients that put nothing else. */
export function text(n) {
    return { key: key(n), data: Buffer.from(`${n},${'größer ≥ 𝄞 '.repeat(n % 30)}`) };
}

/** Records `begin` to `end`, the latter excluded. */
export function range(begin, end, make) {
    return Array.from({ length: end - begin }, (_, i) => make(begin + i));
}

function key(n) {
    return `schlüssel-${n % KEYS}`;
}

/** The number a record begins with. */
export function number(data) {
    return Number(Buffer.from(data).toString('latin1').split(',', 1)[0]);
}

/**
 * Every record of `put` once, unaltered and under its key, and those of a key in their order.
 * `came` is what was read, in the order it was read.
 */
export function compare(put, came) {
    const seen = new Map();
    const lastOfKey = new Map();
    const byNumber = new Map(put.map((record) => [number(record.data), record]));
    for (const { key, data } of came) {
        const n = number(data);
        const before = byNumber.get(n);
        if (!before || before.key !== key || Buffer.compare(before.data, data) !== 0) {
            const bytes = Buffer.from(data).toString('base64');
            throw new Wrong(`record ${n} came back under ${key} as ${bytes}`);
        }
        seen.set(n, (seen.get(n) ?? 0) + 1);
        if (seen.get(n) > 1) {
            throw new Wrong(`record ${n} came ${seen.get(n)} times`);
        }
        if (lastOfKey.has(key) && lastOfKey.get(key) > n) {
            throw new Wrong(`key ${key}: record ${n} came after record ${lastOfKey.get(key)}`);
        }
        lastOfKey.set(key, n);
    }
    const missing = [...byNumber.keys()].filter((n) => !seen.has(n));
    if (missing.length > 0) {
        const first = missing.slice(0, 5);
        throw new Wrong(`${missing.length} of ${put.length} records are missing, first ${first}`);
    }
}

/** Runs a script's `main`: one line of JSON and 0, or the reason and 1. Over the time is a failure too. */
export async function run(main, seconds = 170) {
    const late = setTimeout(() => {
        process.stderr.write(`wrong: not done after ${seconds} s\n`);
        process.exit(1);
    }, seconds * 1000);
    const began = Date.now();
    let code = 0;
    try {
        const found = await main(...process.argv.slice(2));
        const done = { ...found, seconds: (Date.now() - began) / 1000 };
        process.stdout.write(`${JSON.stringify(done)}\n`);
    } catch (failure) {
        const what = failure instanceof Wrong ? `wrong: ${failure.message}` : failure.stack;
        process.stderr.write(`${what}\n`);
        code = 1;
    }
    clearTimeout(late);
    // Some clients leave timers and sockets behind.
    process.exit(code);
}

export function sleep(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until `condition` holds, at most so long. */
export async function until(what, condition, seconds) {
    const end = Date.now() + seconds * 1000;
    while (!(await condition())) {
        if (Date.now() > end) {
            throw new Wrong(`no ${what} within ${seconds} s`);
        }
        await sleep(20);
    }
}

function checkTheChecker() {
    const put = range(0, 4 * KEYS, binary);
    const swapped = (a, b) => put.map((record, n) => put[{ [a]: b, [b]: a }[n] ?? n]);
    compare(put, put);
    compare(put, swapped(3, 4));
    const altered = { key: put[7].key, data: Buffer.concat([put[7].data, Buffer.from('x')]) };
    const tampered = {
        'a lost record': put.slice(1),
        'a lost last record': put.slice(0, -1),
        'a doubled record': [put[0], ...put],
        'a record doubled later': [...put, put[KEYS]],
        'two records of a key swapped': swapped(3, 3 + KEYS),
        'an altered payload': put.with(7, altered),
        'another key': put.with(7, { key: 'other', data: put[7].data }),
        'a record nobody put': [...put, binary(4 * KEYS)],
    };
    for (const [what, came] of Object.entries(tampered)) {
        let noticed;
        try {
            compare(put, came);
        } catch (failure) {
            noticed = failure;
        }
        if (!(noticed instanceof Wrong)) {
            throw new Wrong(`${what} went unnoticed`);
        }
    }
    return { noticed: Object.keys(tampered) };
}

if (fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
    await run(async () => checkTheChecker());
}

// The function of serverless.yml: writes each event it gets as a line of JSON to the file RECEIVED.

'use strict';

const fs = require('node:fs');

exports.receive = async (event) => {
    const { RECEIVED: received } = process.env;
    const line = JSON.stringify(event.Records);
    if (refuse(`${received}.refused`, line)) {
        throw new Error('the first event is refused once');
    }
    fs.appendFileSync(received, `${line}\n`);
};

/** Whether this event is the first of all; it is noted, so that whoever waits for it knows it again. */
function refuse(path, line) {
    try {
        fs.writeFileSync(path, line, { flag: 'wx' });
        return true;
    } catch (error) {
        if (error.code === 'EEXIST') {
            return false;
        }
        throw error;
    }
}

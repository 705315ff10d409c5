// See docs/client.md.

const failure = (name, text, code = name) => Object.assign(new Error(text), { name, code });

// A rejection would end Node.
const promise = (begin) => {
	const made = new Promise(begin);
	made.catch(() => {});
	return made;
};

const parse = (text) => {
	try {
		if (/^\s*[[{]/.test(text)) return JSON.parse(text);
	} catch {}
	return text;
};

const pack = (data) => {
	const kind = {}.toString.call(data); // instanceof knows one realm
	if (ArrayBuffer.isView(data) || /ArrayBuffer/.test(kind)) {
		return new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength).slice();
	}
	const text = typeof data === "string" ? data : JSON.stringify(data);
	if (/Blob|File/.test(kind) || text === undefined) throw new TypeError("no message");
	return text;
};

// [, epoch, offset]
const split = (position) => /(.*)-(\d+)$/.exec(position) ?? [];

const toBytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const toBase64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

const sizeOf = (text) => new Blob([text]).size;
const sum = (entries) => entries.reduce((size, entry) => size + (entry.size ??= sizeOf(entry.wire)), 0);

const webSocketLink = ({ at, queue, on, protocols, opening }) => {
	const ws = new WebSocket(at("ws", ...opening), protocols);
	let isOpen, drain;
	ws.binaryType = "arraybuffer";
	ws.onopen = () => {
		isOpen = true;
		on.open(ws.protocol);
	};
	ws.onmessage = ({ data }) => on.message(typeof data === "string" ? data : new Uint8Array(data));
	ws.onerror = () => isOpen || on.end(1006);
	ws.onclose = ({ code, reason }) => on.end(code, reason);
	ws.end = (...why) => {
		ws.close();
		on.end(...why);
	};
	ws.flush = () => {
		// A closing one drops them.
		while (queue.length && ws.readyState === 1) {
			if (ws.bufferedAmount >= 2 ** 20) {
				clearTimeout(drain);
				drain = setTimeout(on.flush, 50);
				return;
			}
			const { wire, resolve } = queue.shift();
			ws.send(wire);
			resolve();
		}
	};
	return ws;
};

const httpLink = ({ kind, at, csrf, queue, on, protocols, opening }) => {
	const abort = new AbortController();
	const { signal } = abort;
	opening.push(...[protocols].flat().map((name) => "protocol=" + encodeURIComponent(name)));
	let source = queue;
	const batch = [];
	let number = 0;
	let id, closing, closed, isPosting;

	const end = (...why) => {
		abort.abort();
		on.end(...why);
	};

	const call = async (query, options = {}, repeats = 0) => {
		let answer, clock;
		if (options.body) {
			const attempt = new AbortController();
			signal.onabort = () => attempt.abort();
			clock = setTimeout(() => attempt.abort(), 10000 + options.body.length / 4);
			options.signal = attempt.signal;
		}
		try {
			if (!signal.aborted) answer = await fetch(at("http", "transport=" + kind, ...query), {
				cache: "no-store",
				referrerPolicy: "origin",
				signal,
				...options,
			});
			if (answer?.status === 204) return;
			if (answer?.ok && !options.body) return kind === "sse" ? answer : await answer.json();
		} catch {} finally {
			clearTimeout(clock);
		}
		const { status = 0, headers } = answer ?? {};
		const wait = Math.min(Math.abs(headers?.get("Retry-After")) || 0, 86400) * 1000;
		const isRefused = /^4/.test(status) || (options.body && status === 200);
		if (signal.aborted || !id || isRefused || (repeats > 4 && (closing || status !== 503))) {
			throw { status, wait, repeats, isRefused, message: "HTTP " + status };
		}
		await new Promise((done) => setTimeout(done, wait || Math.random() * 1000 * 2 ** repeats));
		return call(query, options, repeats + 1);
	};

	const take = ({ open, text, binary, close }) => {
		if (open) {
			id = open.id;
			on.open(open.subprotocol);
		} else if (close) end(close.code, close.reason);
		else on.message(text ?? toBytes(binary));
	};

	const stream = async () => {
		// Frozen pages stop reading.
		globalThis.document?.addEventListener("resume", () => end(1006), abort);
		const { headers, body } = await call(opening, { headers: { Accept: "text/event-stream" } });
		if (!/event-stream/.test(headers.get("Content-Type"))) return;
		const reader = body.pipeThrough(new TextDecoderStream()).getReader();
		let rest = "";
		let event = "";
		let data = [];
		for (;;) {
			const { value, done } = await reader.read();
			if (done) return;
			on.heard();
			const lines = value.split("\n");
			lines[0] = rest + lines[0];
			rest = lines.pop();
			for (const line of lines) {
				const [, field, content] = /(\w*):? ?([^]*)/.exec(line);
				if (field === "event") event = content;
				if (field === "data") data.push(content);
				if (line) continue;
				const text = data.join("\n");
				if (event === "message") take({ text });
				else if (event === "text") take({ text: new TextDecoder("utf8", { ignoreBOM: true }).decode(toBytes(text)) });
				else if (event === "binary") take({ binary: text });
				else if (event) take({ [event]: JSON.parse(text) });
				event = "";
				data = [];
			}
		}
	};

	const poll = async () => {
		take({ open: await call(opening) });
		for (let ack = 0; !signal.aborted; ) {
			const { n, events } = await call(["id=" + id, "ack=" + ack]);
			on.heard();
			events.forEach(take);
			ack = n;
		}
	};

	const flush = async () => {
		if (isPosting) return;
		isPosting = true;
		while (!signal.aborted && (source.length || closing)) {
			const messages = [];
			let size = 0;
			while (source.length && size < 65536) {
				const { wire } = source[0];
				const message = typeof wire === "string" ? { text: wire } : { binary: toBase64(wire) };
				size += sizeOf(JSON.stringify(message));
				batch.push(source.shift());
				messages.push(message);
			}
			const isLast = closing && !source.length;
			if (isLast) messages.push({ close: closing });
			if (!batch.length) closed(); // for the next link
			try {
				await call(["id=" + id], {
					method: "POST",
					headers: { "Content-Type": "application/json", "X-CSRFToken": csrf() ?? "" },
					body: JSON.stringify({ n: ++number, messages }),
					keepalive: isLast && size < 50000,
				});
				batch.splice(0).forEach((entry) => entry.resolve());
				if (isLast) end(1000);
			} catch ({ status, wait, repeats, isRefused, message }) {
				const rest = batch.splice(0);
				if (isRefused && status !== 410) rest.forEach((entry) => entry.reject(failure("RefusedError", message)));
				else if (isRefused ? !repeats : wait) source.unshift(...rest);
				else rest.forEach((entry) => entry.resolve()); // they count as sent
				end(status === 403 ? 1008 : 1006, message, wait, status === 403);
			}
		}
		isPosting = false;
		queue.unshift(...source.splice(0));
		closed?.();
		if (signal.aborted) on.flush();
	};

	(kind === "sse" ? stream() : poll())
		.catch((error) => error)
		.then((error) => end(1006, error?.message, error?.wait));

	return {
		flush,
		end,
		get bufferedAmount() { return sum(batch); },
		close(code = 1000, reason = "") {
			if (!id || signal.aborted) return abort.abort();
			closing = { code: +code, reason: reason + "" };
			if (source === queue) source = queue.splice(0);
			return new Promise((done) => {
				closed = done;
				flush();
			});
		},
	};
};

const emitter = () => {
	const handlers = { __proto__: null };
	return {
		handlers,
		on(name, handler) {
			(handlers[name] ??= new Set()).add(handler);
			return () => handlers[name].delete(handler);
		},
		emit(name, ...values) {
			// Handlers that throw stop no other.
			[...(handlers[name] ?? [])].forEach(async (handler) => {
				try {
					await handler(...values);
				} catch (error) {
					if (globalThis.document) throw error;
					console.error(error);
				}
			});
		},
	};
};

export function connect(url, options = {}) {
	const { protocols = [], resume, former, fallback, csrfToken, positions = {}, text } = options;
	const { document: page, navigator, location } = globalThis;
	const beat = options.beat === 0 ? 0 : Math.min(300, Math.max(10, Math.round(options.beat) || 20));
	const known = new Map(Object.entries(resume ? positions : {}));
	const ended = new AbortController();
	const { handlers, on, emit } = emitter();
	const queue = [];
	const asked = new Map();
	const dials = [-Infinity, -Infinity];
	const memory = "dwebsocket" + /\/\/[^/]*/.exec(url);
	let state = "connecting";
	let transport = "websocket";
	let protocol = "";
	let ownId = "";
	let triedAt, link, probe, held, timer, backTimer, rooms, hasWarned, isJoining;
	let tries = 0; // since one that lasted
	let failures = 0; // of WebSockets, in a row
	let refusals = 0; // of handshakes, in a row
	let earliest = 0; // of the next attempt
	let doubts = 0; // attempts left beside a silent one
	let silences = 0; // of a server without beats
	try {
		if (fallback) [transport, triedAt] = sessionStorage[memory].split(",");
	} catch {}

	const become = (next, why) => state === "closed" || emit("state", (state = next), why);

	const flush = () => {
		if (state === "closed") dropQueue();
		// Messages might get lost while a beat is late.
		if (state === "open" && !held && !doubts && !link.isLate()) link.inner.flush();
	};

	const put = (entry) => {
		if (state === "closed") return entry.reject(failure("ClosedError"));
		queue.push(entry);
		flush();
		if (!entry.ofLink && queue.includes(entry) && (queue.length > 1000 || sum(queue) > 2 ** 24)) {
			queue.splice(queue.indexOf(entry), 1);
			entry.reject(failure("QueueFullError"));
		}
	};

	// Joins say anew what is ofLink.
	const request = (body, timeout = 10000, resolve, reject) => {
		const id = Number(crypto.getRandomValues(new BigUint64Array(1))[0] >> 11n);
		const settle = (how) => (value) => {
			clearTimeout(clock);
			asked.delete(id);
			how?.(value);
		};
		const entry = {
			wire: pack({ id, ...body }),
			ofLink: !reject || body.update,
			resolve() {},
			reject: settle(reject),
			answer: settle(resolve),
		};
		const clock = setTimeout(() => {
			if (queue.includes(entry)) queue.splice(queue.indexOf(entry), 1);
			entry.reject(failure("TimeoutError"));
		}, Math.min(timeout, 2 ** 31 - 1));
		asked.set(id, entry);
		put(entry);
	};

	const dropQueue = () => queue.splice(0).forEach(put);

	// The next view does not know them.
	const loseRequests = () => {
		queue.unshift(...queue.splice(0).filter((entry) => !entry.ofLink));
		asked.forEach((entry) => queue.includes(entry) || entry.reject(failure("ConnectionLostError")));
	};

	const know = (group, position) => {
		known.delete(group);
		known.set(group, position);
	};

	const read = ({ data, binary }) => (binary ? toBytes(data) : text ? data : parse(data));

	const makeRoom = (name, { position = null, info }) => {
		let told = parse(pack({ info })); // `before`: refused
		position &&= position + "";
		const { on, emit } = emitter();
		const members = new Map();
		let phase = "joining";
		let end, hasJoined, retry;

		const become = (next, why, timer) => {
			clearTimeout(retry);
			retry = timer;
			emit("state", (phase = next), why);
		};

		const say = (body, timeout) => promise((resolve, reject) => {
			const fail = ({ text, code }) => reject(failure("RoomError", text, code));
			if (end) return fail(end);
			request(body, timeout, ({ ok, error }) => (error ? fail(error) : resolve(ok)), reject);
		});

		const note = (kind, member) => {
			const isKnown = members.has(member.key);
			if (kind === "left") members.delete(member.key);
			else members.set(member.key, member);
			if (hasJoined && !end) emit(isKnown && kind === "joined" ? "updated" : kind, member);
		};

		const room = {
			users: 0,
			become,
			end(next, why = { code: next }) {
				if (end) return;
				end = why;
				rooms.delete(name);
				become(next, why);
			},
			join() {
				request({ join: name, since: position ?? (hasJoined && ""), ...(told.before ?? told) }, Infinity, ({ ok, error }) => {
					if (end) return;
					if (error?.code === "unavailable") return become("waiting", error, setTimeout(room.join, Math.random() * 10000));
					if (error) return room.end("refused", error);
					const { recovered, missed, members: now = [], count } = ok;
					// Else messages move it there.
					if (!recovered || !missed) position = ok.position;
					members.forEach((member, key) => {
						if (now.some((each) => each.key === key)) return;
						if (count > now.length) members.delete(key); // not all are named
						else note("left", member);
					});
					now.forEach((member) => note("joined", member));
					hasJoined = true;
					if (!end) become("joined");
					if (!end) emit("recovered", { recovered, missed });
				});
				become("joining");
			},
			take(message) {
				const { data, event, ended, recovered } = message;
				if (phase !== "joined") return;
				if (event) emit(event, data, message.from);
				else if (ended) room.end("ended", ended);
				else if (recovered === false) emit("recovered", { recovered, missed: 0 });
				else if ("data" in message) {
					position = message.position;
					emit("message", read(message), { position });
				}
				for (const kind of ["joined", "left", "updated"]) {
					for (const member of [message[kind] ?? []].flat()) note(kind, member);
				}
			},
		};
		room.own = {
			name,
			on,
			emit: (event, data, { timeout } = {}) => say({ to: name, event: event + "", data }, timeout),
			update(info) {
				const before = told;
				const now = (told = parse(pack({ info })));
				if (phase === "waiting") return Promise.resolve({});
				const asked = say({ update: name, ...now });
				asked.catch((error) => error.name === "RoomError" && (now.before = before.before ?? before));
				return asked;
			},
			leave() {
				if (--room.users || end) return;
				if (isJoining || state === "open") request({ leave: name }, Infinity);
				room.end("left");
			},
			get state() { return phase; },
			get members() { return [...members.values()]; },
			get position() { return position; },
		};
		return room;
	};

	const shut = (room) => setTimeout(() => room.end("ended", { code: "closed" }));

	const receive = (raw, mine) => {
		const message = typeof raw === "string" ? parse(raw) : raw;
		const plain = text ? raw : message;
		mine.said++;
		if (message === raw) return emit("message", raw, {});
		let { id, group, position, missed, recovered } = message;
		if (asked.has(id) && ("data" in message || rooms)) return asked.get(id).answer(message);
		if (rooms && message.room) return rooms.get(message.room)?.take(message);
		const [, epoch, offset] = split(position);
		const last = split(known.get(group));
		const isNew = epoch !== last[1] || +offset > +last[2];
		const event = ["joined", "left"].find((kind) => message[kind]);
		// Messages of members begin with a blank.
		if (!/^{"group": ?"/.test(raw) || !(resume || handlers[event]?.size)) emit("message", plain, {});
		else if (event) for (const member of [message[event]].flat()) emit(event, member, group);
		else if (recovered !== undefined) {
			ownId = id;
			mine.said--;
			mine.tell(group);
			recovered &&= !mine.omitted.delete(group);
			// A newer one may have come before.
			const hasMoved = known.get(group) !== mine.dialled.get(group);
			if (hasMoved ? isNew : !recovered || (isNew && !missed)) know(group, position);
			emit("recovered", { group, recovered, missed });
		} else if (!offset) emit("message", plain, {});
		else {
			mine.tell(group);
			if (!isNew) return;
			know(group, position);
			emit("message", read(message), { group, position });
		}
	};

	const dial = (kind) => {
		let openedAt, heardAt, toldAt, clock, every;
		const mine = {
			dialled: new Map(known),
			omitted: new Set(),
			groups: new Set(),
			tell(group) {
				mine.groups.add(group);
				toldAt = heardAt;
			},
			said: 0,
			silence: () => Math.abs(Date.now() - heardAt), // clocks may be set back
			isWatched: () => every && silences < 2,
			isLate: () => mine.isWatched() && mine.silence() > every * 1100,
			look() {
				if (mine !== link || !openedAt || !mine.isWatched()) return;
				clearTimeout(clock);
				const left = every * 1500 - mine.silence();
				if (left > 0) clock = setTimeout(mine.look, left);
				else {
					silences += heardAt - openedAt < every * 1100;
					mine.inner.end(1006, "silence");
				}
			},
			close(...how) {
				clearTimeout(clock);
				return mine.inner?.close(...how);
			},
			open(agreed) {
				clearTimeout(clock);
				openedAt = heardAt = Date.now();
				if (mine === probe) {
					clearTimeout(timer);
					// The old one sends first.
					held = Promise.resolve(link?.close()).then(() => flush((held = undefined)));
					link = mine;
					probe = undefined;
					doubts = 0;
					loseRequests();
					become("connecting");
				}
				if (mine !== link) return;
				transport = kind;
				protocol = agreed;
				refusals = 0;
				planBack();
				mine.look();
				isJoining = true;
				const { length } = queue;
				rooms?.forEach((room) => room.join());
				isJoining = false;
				queue.unshift(...queue.splice(length));
				become("open");
				flush();
			},
			heard() {
				heardAt = Date.now();
				if (mine !== link) return;
				if (doubts) {
					probe?.close();
					probe = undefined;
					doubts = 0;
				}
				flush();
			},
			message(data) {
				mine.heard();
				if (mine !== link) return;
				if (every && typeof data === "string" && /^ *$/.test(data)) {
					if (!data) {
						silences = -Infinity;
						return mine.look();
					}
					data = data.slice(1); // the server tells it from a beat
				}
				receive(data, mine);
			},
			flush,
			end(code, reason = "", wait = 0, isFinal) {
				clearTimeout(clock);
				if (mine === probe) {
					probe = undefined;
					planBack();
					if (doubts && --doubts) timer = setTimeout(doubt, 1000);
					flush();
				}
				if (mine !== link) return;
				link = undefined;
				clearTimeout(timer);
				doubts = 0;
				if (code === 4401 || isFinal || (code === 1008 && !mine.said)) return finish({ code, reason });
				// Before that the server may tell of others.
				if (heardAt - toldAt > 1000) {
					for (const group of known.keys()) if (!mine.groups.has(group)) known.delete(group);
				}
				if (Date.now() - openedAt > 5000) tries = 0;
				if (openedAt) failures = 0;
				else if (kind === "sse") transport = "polling"; // some proxies keep events
				else if (kind === "polling") [transport, failures] = ["websocket", 0];
				else if (fallback && mine.at && navigator?.onLine !== false && (!mine.inner || ++failures > 1)) transport = "sse";
				tries = Math.max(tries, { 1012: 2, 1013: 4 }[code] ?? 0);
				wait ||= Math.min(Math.abs(/retry after ([\d.]+)/i.exec(reason)?.[1]) || 0, 86400) * 1000;
				earliest = Date.now() + wait;
				const delay = Math.max(pause(), wait + Math.random() * Math.min(30000, 500 * 2 ** tries++));
				timer = setTimeout(redial, delay);
				loseRequests();
				const why = { code, reason, delay };
				state = "waiting";
				rooms?.forEach((room) => room.become("waiting", why));
				become("waiting", why);
				if (mine.inner && !openedAt && reason !== "timeout" && ++refusals % 3 === 0) ask(mine.at("http"));
			},
		};
		clock = setTimeout(() => {
			mine.end(1006, "timeout");
			mine.close();
		}, kind === "sse" ? 5000 : 10000);
		if (link) probe = mine;
		else link = mine;
		const begin = ([address, offered]) => {
			const { href, host, searchParams } = new URL(address, page?.baseURI ?? location?.href);
			const at = mine.at = (scheme, ...query) => {
				const target = new URL(href.replace(/^ws|^http/, scheme));
				target.search = [target.search, ...query].filter(Boolean).join("&");
				target.hash = "";
				return target.href;
			};
			if (mine !== link && mine !== probe) return;
			const own = searchParams.get("beat");
			every = +(own || beat);
			const opening = [former && "former=" + ownId, beat && !own && "beat=" + beat];
			let { length } = at("ws", ...opening);
			for (const pair of [...known].reverse()) {
				const since = "since=" + encodeURIComponent(pair.join(":"));
				length += since.length + 1;
				if (length > 3000) mine.omitted.add(pair[0]);
				else opening.unshift(since);
			}
			if (mine.omitted.size && !hasWarned) {
				hasWarned = true;
				console.warn("dwebsocket: too many positions; use rooms");
			}
			mine.inner = (kind === "websocket" ? webSocketLink : httpLink)({
				kind, at, queue, opening, on: mine, protocols: offered,
				csrf() {
					try {
						return csrfToken ?? /(?:^|; )csrftoken=([^;]*)/.exec(host === location.host && page.cookie)[1];
					} catch {}
				},
			});
		};
		const fail = (error) => mine.end(1006, `${error?.message ?? error}`);
		dials.push(Date.now());
		dials.shift();
		if (kind === "websocket") triedAt = Date.now();
		const given = [url, protocols];
		if (given.some((each) => typeof each === "function")) {
			return Promise.all(given.map(async (each) => (typeof each === "function" ? each() : each))).then(begin).catch(fail);
		}
		try {
			begin(given);
		} catch (error) {
			clearTimeout(clock);
			// Others are the CSP's.
			if (state === "connecting" && (!fallback || /^(Type|Syntax)Error$/.test(error.name))) throw error;
			Promise.reject(error).catch(fail);
		}
	};

	// At most two attempts a second.
	const pause = () => Math.min(1000, Math.max(0, dials[0] + 1000 - Date.now()));

	const soon = (run) => (pause() ? setTimeout(run, pause()) : run());

	const redial = () => {
		clearTimeout(timer);
		dial(transport);
		become("connecting");
	};

	// Browsers hide the status.
	const ask = async (address) => {
		try {
			const { status, body } = await fetch(address, { cache: "no-store", signal: ended.signal });
			body?.cancel();
			if (!/^4(04|10)$/.test(status) || !refusals) return;
			link?.close();
			finish({ code: 1006, reason: "HTTP " + status, status });
		} catch {}
	};

	// Later pages begin with it.
	const planBack = () => {
		try {
			if (transport === "websocket") return delete sessionStorage[memory];
			backTimer ??= setTimeout(back, 600000 - Math.abs(Date.now() - triedAt));
			sessionStorage[memory] = [transport, triedAt];
		} catch {}
	};

	const back = () => {
		backTimer = undefined;
		if (transport === "websocket" || probe) return;
		if (state === "open") dial("websocket");
		else [transport, failures] = ["websocket", 1];
	};

	const doubt = () => {
		if (probe || !doubts) return;
		clearTimeout(timer);
		const wait = Math.max(pause(), 1000 - link.silence());
		if (wait) timer = setTimeout(doubt, wait);
		else dial("websocket");
	};

	const wake = ({ type }) => {
		if (type !== "online" && page.hidden) return;
		link?.look();
		if (type === "online") {
			tries = 0;
			clearTimeout(backTimer);
			backTimer = soon(back);
			if (beat && state === "open" && transport === "websocket") {
				doubts = 3;
				doubt();
			}
		}
		if (state !== "waiting" || Date.now() < earliest) return;
		clearTimeout(timer);
		timer = soon(redial);
	};

	const finish = (why) => {
		clearTimeout(timer);
		clearTimeout(backTimer);
		ended.abort();
		probe?.close();
		probe = link = undefined;
		rooms?.forEach(shut);
		become("closed", why);
		dropQueue();
		loseRequests();
	};

	dial(transport);
	globalThis.addEventListener?.("online", wake, ended);
	page?.addEventListener("visibilitychange", wake, ended);
	// The Back button may bring it back.
	globalThis.addEventListener?.("pagehide", () => link?.inner?.close(), ended);

	return {
		on,
		join(name, options = {}) {
			name += "";
			rooms ??= new Map();
			let room = rooms.get(name);
			if (!room) {
				rooms.set(name, (room = makeRoom(name, options)));
				if (state === "open") room.join();
				if (state === "closed") shut(room);
			}
			room.users++;
			return room.own;
		},
		send: (data) => promise((resolve, reject) => put({ wire: pack(data), resolve, reject })),
		request: (data, { timeout } = {}) => promise((...how) => request({ data }, timeout, ...how)),
		close(code = 1000, reason = "") {
			if (state === "closed") return;
			if (!/^(1000|[34]\d{3})$/.test(code)) throw failure("InvalidAccessError");
			if (sizeOf(reason) > 123) throw failure("SyntaxError");
			link?.close(code, reason);
			finish({ code, reason });
		},
		get state() { return state; },
		get transport() { return transport; },
		get protocol() { return protocol; },
		get positions() { return Object.fromEntries(known); },
		get bufferedAmount() { return sum(queue) + (link?.inner?.bufferedAmount ?? 0); },
	};
}

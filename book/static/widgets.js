// Things to touch, for the book: plain JavaScript and SVG. Their arithmetic is minispike's, operation by operation.
(function (root) {
  "use strict";

  // ---------------------------------------------------------------- arithmetic; a test compares it with minispike

  // charge, fire, reset; reset: a number (hard) or null (soft). See minispike/neuron.py
  function lif(X, { tau = 2, threshold = 1, reset = 0 } = {}) {
    const H = [], S = [], V = [], rest = reset === null ? 0 : reset;
    let v = rest;
    for (const x of X) {
      const h = v + (x - (v - rest)) / tau, s = h >= threshold ? 1 : 0;
      v = reset === null ? h - threshold * s : s ? rest : h;
      H.push(h); S.push(s); V.push(v);
    }
    return { H, S, V };
  }

  // each surrogate's slope at u, as in minispike/surrogate.py
  const slopes = {
    Sigmoid: (u, a) => { const y = Math.tanh(0.5 * a * u); return 0.25 * a * (1 - y * y); },
    ATan: (u, a) => (0.5 * a) / (1 + (0.5 * Math.PI * a * u) ** 2),
    Triangle: (u, a) => Math.max(0, a - a * a * Math.abs(u)),
    Rectangle: (u, a) => (Math.abs(u) < 0.5 / a ? a : 0),
    FastSigmoid: (u, a) => (0.5 * a) / (1 + a * Math.abs(u)) ** 2,
  };

  // dL/dX from dL/dS, hard and detached reset
  function bptt(H, gS, { tau = 2, threshold = 1, surrogate = "Sigmoid", alpha = 4 } = {}) {
    const gX = Array(H.length).fill(0);
    let gV = 0;
    for (let t = H.length - 1; t >= 0; t--) {
      const gH = gS[t] * slopes[surrogate](H[t] - threshold, alpha) + gV * (H[t] >= threshold ? 0 : 1);
      gX[t] = gH / tau;
      gV = gH * (1 - 1 / tau);
    }
    return gX;
  }

  // Q K^T of spikes: in how many channels two tokens fire together
  const coincidences = (Q, K) => Q.map((q) => K.map((k) => q.reduce((n, bit, c) => n + bit * k[c], 0)));

  // multiply-accumulates of (Q K^T) V and Q (K^T V), N tokens, d channels
  const costs = (N, d) => [2 * N * N * d, 2 * N * d * d];

  const mix = (matrix, x) => matrix.map((row) => row.reduce((sum, m, n) => sum + m * x[n], 0));

  // ---------------------------------------------------------------- drawing

  function svg(tag, attributes, parent, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  }

  const Base = root.HTMLElement || class {};

  // A widget: controls, a picture, and a sentence that says what the picture shows.
  class Playground extends Base {
    connectedCallback() {
      if (this.form) return;
      const script = this.querySelector("script");
      this.data = script ? JSON.parse(script.textContent) : null;
      this.form = document.createElement("form");
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.picture = svg("svg", { role: "group", "aria-label": this.label }, null);
      this.sentence = document.createElement("p");
      this.sentence.setAttribute("aria-live", "polite");
      this.append(this.form, this.picture, this.sentence);
      this.build();
      this.draw();
    }
    slider(name, min, max, step, value) {
      const label = document.createElement("label"), input = document.createElement("input");
      const shown = document.createElement("output");
      Object.assign(input, { type: "range", min, max, step, name });
      input.value = shown.value = value;
      input.addEventListener("input", () => { shown.value = input.value; this.draw(); });
      label.append(name + " ", input, " ", shown);
      this.form.append(label);
      return () => Number(input.value);
    }
    choice(name, values) {
      const label = document.createElement("label"), select = document.createElement("select");
      select.name = name;
      for (const value of values) select.append(new Option(value, value));
      select.addEventListener("input", () => this.draw());
      label.append(name + " ", select);
      this.form.append(label);
      return () => select.value;
    }
    size(width, height) { this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`); }
    line(values, x, y, kind) {
      svg("polyline", { points: values.map((v, t) => `${x(t)},${y(v)}`).join(" "), class: kind }, this.picture);
    }
    // a grid of tokens that can be chosen by mouse and keyboard
    tiles(rows, columns, left, top, side, name, choose) {
      return Array.from({ length: rows * columns }, (_, i) => {
        const at = { x: left + (i % columns) * side, y: top + Math.floor(i / columns) * side };
        const tile = svg("rect", { ...at, width: side, height: side, class: "ms-tile" }, this.picture);
        if (choose) {
          for (const [key, value] of Object.entries({ tabindex: 0, role: "button", "aria-label": `${name} ${i}` }))
            tile.setAttribute(key, value);
          tile.addEventListener("click", () => choose(i));
          tile.addEventListener("keydown", (event) => {
            if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(i); }
          });
        }
        return tile;
      });
    }
  }

  class LifPlayground extends Playground {
    get label() { return "current, membrane potential and spikes of one neuron over 48 steps"; }
    build() {
      this.size(640, 250);
      this.current = this.slider("input X", 0, 3, 0.05, 1.4);
      this.tau = this.slider("time constant τ", 1.5, 16, 0.5, 4);
      this.threshold = this.slider("threshold", 0.2, 3, 0.1, 1);
      this.reset = this.choice("reset", ["hard", "soft"]);
    }
    draw() {
      const T = 48, X = Array(T).fill(this.current()), threshold = this.threshold();
      const { H, S } = lif(X, { tau: this.tau(), threshold, reset: this.reset() === "hard" ? 0 : null });
      const top = Math.max(3.1, ...H), x = (t) => 12 + (t * 616) / (T - 1), y = (v) => 205 - (v / top) * 190;
      this.picture.replaceChildren();
      svg("line", { x1: 12, x2: 628, y1: y(threshold), y2: y(threshold), class: "ms-threshold" }, this.picture);
      svg("text", { x: 14, y: y(threshold) - 4, class: "ms-text" }, this.picture, "threshold");
      this.line(X, x, y, "ms-current");
      this.line(H, x, y, "ms-line");
      S.forEach((s, t) => s && svg("line", { x1: x(t), x2: x(t), y1: 214, y2: 236, class: "ms-spike" }, this.picture));
      const n = S.reduce((sum, s) => sum + s, 0);
      this.sentence.textContent = n
        ? `${n} spikes in ${T} steps, a rate of ${(n / T).toFixed(2)}; the first one at step ${S.indexOf(1) + 1}.`
        : `No spike: H ends at ${H[T - 1].toFixed(3)}, below the threshold of ${threshold}.`;
    }
  }

  class SurrogatePlayground extends Playground {
    get label() { return "a surrogate's slope, and the gradient that it sends back through time"; }
    build() {
      this.size(640, 230);
      this.kind = this.choice("surrogate", Object.keys(slopes));
      this.alpha = this.slider("steepness α", 0.5, 8, 0.5, 4);
      this.tau = this.slider("time constant τ", 1.5, 16, 0.5, 4);
      this.current = this.slider("input X", 0, 3, 0.05, 0.9);
    }
    draw() {
      const T = 24, surrogate = this.kind(), alpha = this.alpha(), tau = this.tau();
      const { H, S } = lif(Array(T).fill(this.current()), { tau });
      const gX = bptt(H, Array(T).fill(0).with(T - 1, 1), { tau, surrogate, alpha });
      const U = Array.from({ length: 121 }, (_, i) => (i - 60) / 30), g = U.map((u) => slopes[surrogate](u, alpha));
      const high = Math.max(1, ...g), most = Math.max(1e-12, ...gX.map(Math.abs));
      this.picture.replaceChildren();
      svg("text", { x: 12, y: 16, class: "ms-text" }, this.picture, "slope g′ over u = H − threshold");
      this.line(g, (i) => 12 + i * 2.3, (v) => 205 - (v / high) * 170, "ms-line");
      svg("line", { x1: 150, x2: 150, y1: 25, y2: 205, class: "ms-threshold" }, this.picture);
      svg("text", { x: 330, y: 16, class: "ms-text" }, this.picture, "∂L/∂X of each step, if the last spike counts");
      gX.forEach((v, t) => {
        const height = (Math.abs(v) / most) * 170, at = { x: 330 + t * 12.5, y: 205 - height, width: 9, height };
        svg("rect", { ...at, class: S[t] ? "ms-bar ms-fired" : "ms-bar" }, this.picture);
      });
      const reached = gX.filter((v) => Math.abs(v) > 0.01 * most).length;
      const fired = S.reduce((sum, s) => sum + s, 0);
      this.sentence.textContent =
        `${surrogate}(${alpha}): g′(0) = ${slopes[surrogate](0, alpha).toFixed(2)}. ${fired} of ${T} steps fire; ` +
        `${reached} steps get more than a hundredth of the largest gradient, which is ${most.toExponential(1)}.`;
    }
  }

  class SsaPlayground extends Playground {
    get label() { return "a digit in 16 tokens; choose one to see where its query meets keys"; }
    build() {
      const bits = (rows) => rows.map((row) => [...row].map(Number));
      this.Q = bits(this.data.Q); this.K = bits(this.data.K); this.counts = coincidences(this.Q, this.K);
      this.size(320, 320);
      const flat = this.data.image.flat(), low = Math.min(...flat), high = Math.max(...flat);
      this.data.image.forEach((row, r) => row.forEach((v, c) => svg("rect", {
        x: c * 40, y: r * 40, width: 40, height: 40, fill: `hsl(0 0% ${100 - (85 * (v - low)) / (high - low)}%)`,
      }, this.picture)));
      this.chosen = 5;
      this.squares = this.tiles(4, 4, 0, 0, 80, "token", (i) => { this.chosen = i; this.draw(); });
      this.N = this.slider("tokens N", 4, 256, 4, 16);
      this.d = this.slider("channels of a head d", 4, 128, 4, 16);
    }
    draw() {
      const i = this.chosen, row = this.counts[i], most = Math.max(1, ...row);
      this.squares.forEach((tile, j) => {
        tile.style.fillOpacity = (0.8 * row[j]) / most;
        tile.classList.toggle("ms-chosen", i === j);
        tile.setAttribute("aria-pressed", String(i === j));
      });
      const best = row.indexOf(Math.max(...row)), fires = this.Q[i].reduce((a, b) => a + b);
      const [first, second] = costs(this.N(), this.d());
      this.sentence.textContent =
        `Token ${i}'s query fires in ${fires} of 16 channels; it meets the key of token ${best} most often, in ${row[best]}, ` +
        `and ${row.filter((n) => !n).length} keys never. With ${this.N()} tokens and ${this.d()} channels, (Q Kᵀ) V costs ` +
        `${first.toLocaleString("en")} multiply-accumulates and Q (Kᵀ V) ${second.toLocaleString("en")}.`;
    }
  }

  class MixingPlayground extends Playground {
    get label() { return "a 4×4 grid of tokens and what a transform makes of it; choose a token to change it"; }
    build() {
      const [rows, columns] = this.data.grid;
      this.kind = this.choice("transform", Object.keys(this.data.matrices));
      this.size(400, 200);
      this.x = Array(rows * columns).fill(0).with(5, 1);
      svg("text", { x: 0, y: 14, class: "ms-text" }, this.picture, "tokens: choose one");
      svg("text", { x: 210, y: 14, class: "ms-text" }, this.picture, "mixed tokens");
      this.before = this.tiles(rows, columns, 0, 24, 42, "token", (i) => { this.x = this.x.with(i, 1 - this.x[i]); this.draw(); });
      this.after = this.tiles(rows, columns, 210, 24, 42, "mixed token", null);
    }
    draw() {
      const y = mix(this.data.matrices[this.kind()], this.x), most = Math.max(1e-12, ...y.map(Math.abs));
      this.before.forEach((tile, i) => {
        tile.style.fillOpacity = 0.85 * this.x[i];
        tile.setAttribute("aria-pressed", String(this.x[i] === 1));
      });
      this.after.forEach((tile, i) => {
        tile.style.fillOpacity = (0.85 * Math.abs(y[i])) / most;
        tile.classList.toggle("ms-negative", y[i] < -1e-12);
      });
      const n = this.x.reduce((a, b) => a + b), changed = y.filter((v) => Math.abs(v) > 1e-12).length;
      this.sentence.textContent = `${n} of 16 tokens ${n === 1 ? "is" : "are"} 1; ${changed} mixed tokens are not 0.`;
    }
  }

  root.minispike = { lif, slopes, bptt, coincidences, costs, mix };
  if (root.customElements) {
    customElements.define("lif-playground", LifPlayground);
    customElements.define("surrogate-playground", SurrogatePlayground);
    customElements.define("ssa-playground", SsaPlayground);
    customElements.define("mixing-playground", MixingPlayground);
  }
})(globalThis);

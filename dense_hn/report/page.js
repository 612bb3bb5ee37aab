"use strict";

const data = JSON.parse(document.getElementById("comparison").textContent);
// Rows of the list that are made at once.
const ROWS = 200;
const find = (id) => document.getElementById(id);
const plots = [];

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function theme(layout) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--soft") };
  return {
    ...layout,
    font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis },
  };
}

function draw(element, traces, layout) {
  const options = { responsive: true, displayModeBar: false };
  const done = Plotly.react(element, traces, theme(layout), options);
  if (!plots.some((plot) => plot.element === element)) plots.push({ element });
  plots.find((plot) => plot.element === element).redraw = () => draw(element, traces, layout);
  return done;
}

// --- light and dark

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  for (const plot of plots) plot.redraw();
}
setTheme(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
find("theme").addEventListener("click", () =>
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

// --- two systems, topic by topic

const systems = Object.keys(data.values);
for (const select of [find("ours"), find("theirs")])
  for (const system of systems) select.append(make("option", { value: system, textContent: system }));
find("ours").value = systems[systems.length - 1];
find("theirs").value = systems[0];

let chosen = null;

function signed(number) {
  return (number > 0 ? "+" : "") + number.toFixed(4);
}

function sorted() {
  const ours = data.values[find("ours").value];
  const theirs = data.values[find("theirs").value];
  return data.topics
    .map(([qid, text], place) => ({
      qid, text, ours: ours[place], theirs: theirs[place],
      difference: ours[place] - theirs[place],
    }))
    .sort((a, b) => b.difference - a.difference);
}

const FILTERS = {
  all: () => true,
  gained: (topic) => topic.difference > 0,
  lost: (topic) => topic.difference < 0,
  ranked: (topic) => Object.hasOwn(data.hits, topic.qid),
};

function update() {
  const topics = sorted();
  const gained = topics.filter(FILTERS.gained).length;
  const lost = topics.filter(FILTERS.lost).length;
  const mean = topics.reduce((sum, topic) => sum + topic.difference, 0) / topics.length;
  find("told").textContent =
    `${find("ours").value} against ${find("theirs").value}, ${data.measure}: ` +
    `better on ${gained} topics, worse on ${lost}, the same on ` +
    `${topics.length - gained - lost}; ${signed(mean)} on average.`;
  bars(topics);
  list(topics);
  detail();
}

function bars(topics) {
  const trace = {
    type: "bar",
    y: topics.map((topic) => topic.difference),
    customdata: topics.map((topic) => topic.qid),
    // Plotly reads a few tags in it.
    text: topics.map((topic) => topic.text.slice(0, 80).replaceAll("<", "‹")),
    textposition: "none",
    hovertemplate: "%{customdata}: %{y:+.4f}<br>%{text}<extra></extra>",
    marker: { color: topics.map((t) => colour(t.difference < 0 ? "--bad" : "--good")), line: { width: 0 } },
  };
  const layout = {
    height: 240, bargap: 0, margin: { l: 50, r: 10, t: 10, b: 30 },
    xaxis: { title: { text: "topics, sorted" }, showticklabels: false },
    yaxis: { title: { text: data.measure } },
  };
  draw(find("bars"), [trace], layout).then((plot) => {
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", (event) => choose(event.points[0].customdata));
  });
}

function list(topics) {
  const words = find("search").value.toLowerCase();
  const wanted = topics.filter(FILTERS[find("filter").value]).filter((topic) =>
    topic.qid.toLowerCase() === words || topic.text.toLowerCase().includes(words));
  if (find("filter").value === "lost") wanted.reverse();
  find("list").replaceChildren(...wanted.slice(0, ROWS).map((topic) => {
    const sign = topic.difference > 0 ? "gain" : topic.difference < 0 ? "loss" : "";
    const row = make("tr", { className: topic.qid === chosen ? "chosen" : "" },
      make("td", {}, make("button", { type: "button", textContent: topic.qid })),
      make("td", { textContent: topic.text }),
      make("td", { className: "number", textContent: topic.theirs.toFixed(4) }),
      make("td", { className: "number", textContent: topic.ours.toFixed(4) }),
      make("td", { className: `number ${sign}`, textContent: signed(topic.difference) }));
    row.dataset.qid = topic.qid;
    row.addEventListener("click", () => choose(topic.qid));
    return row;
  }));
  find("shown").textContent = wanted.length > ROWS
    ? `The first ${ROWS} of ${wanted.length} topics; search for others.`
    : `${wanted.length} topics.`;
}

function choose(qid) {
  chosen = qid;
  for (const row of find("list").children)
    row.className = row.dataset.qid === qid ? "chosen" : "";
  detail();
  find("detail").firstChild.scrollIntoView({ block: "nearest" });
}

function passage(docid, relevant) {
  return make("li", { className: relevant.includes(docid) ? "relevant" : "" },
    make("b", { textContent: docid }), make("p", { textContent: data.texts[docid] }));
}

function detail() {
  if (chosen === null) {
    find("detail").replaceChildren(make("p", {
      className: "note", textContent: "Choose a topic, in the list or by its bar, to see its rankings." }));
    return;
  }
  const [qid, text] = data.topics.find((topic) => topic[0] === chosen);
  const head = make("h3", { textContent: `${qid}: ${text}` });
  if (!Object.hasOwn(data.hits, qid)) {
    find("detail").replaceChildren(head, make("p", { className: "note",
      textContent: "The page has rankings only of the topics that changed most between two systems: choose “those with rankings”." }));
    return;
  }
  const relevant = data.relevant[qid];
  const names = [find("theirs").value, find("ours").value];
  const sides = names.map((name) => make("div", {}, make("h3", { textContent: name }),
    make("ol", {}, ...data.hits[qid][name].map((docid) => passage(docid, relevant)))));
  const missed = relevant.filter((docid) => names.some((name) => !data.hits[qid][name].includes(docid)));
  const rest = missed.length ? [make("h3", { textContent: "Relevant, and not among the first of both" }),
    make("div", { className: "sides" }, make("ul", {}, ...missed.map((docid) => passage(docid, relevant))))] : [];
  find("detail").replaceChildren(head, make("div", { className: "sides" }, ...sides), ...rest);
}

for (const id of ["ours", "theirs"]) find(id).addEventListener("change", update);
find("filter").addEventListener("change", () => list(sorted()));
find("search").addEventListener("input", () => list(sorted()));

// --- all figures

for (const element of document.querySelectorAll("[data-figure]")) {
  const name = element.dataset.figure;
  const source = find(name === "costs" ? "costs-figure" : name);
  const figure = JSON.parse(source.textContent);
  draw(element, figure.data, figure.layout);
}
update();

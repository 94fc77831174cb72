// What is known about one visual token, in words: the same for the tooltip, the live region and a screen reader.

import { boxOf } from "./boards.js";
import { difference } from "./painters.js";
import { getJson, runUrl } from "./wire.js";

const FATES = ["kept", "merged", "dropped"];
const MINUS = "\u2212";
const THIN = "\u202f";

/** Text of a size with the sign of a value. */
export const signed = (value, text) => (value > 0 ? `+${text}` : value < 0 ? `${MINUS}${text}` : text);

/** A number of per cent: whole from ten on, one decimal from one on, below that two significant digits. */
export function hundredths(share) {
  const value = Math.abs(share * 100);
  if (value === 0 || value >= 9.95) return value.toFixed(0);
  if (value >= 0.95) return value.toFixed(1);
  return value < 0.001 ? "< 0.001" : String(Number(value.toPrecision(2)));
}

export const percent = (share) => `${hundredths(share)}${THIN}%`;

/** A number with three significant digits. */
export function brief(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replace("-", MINUS);
}

/** Facts of a token from what the page holds. The fields are those of /runs/{run}/tokens. */
export function localFacts(tokens, token, attention, geometry) {
  const place = tokens.place[token];
  const target = tokens.target[token];
  const box = boxOf(tokens, token);
  const aim = target >= 0 && target !== token ? tokens.place[target] : null;
  let members = 0;
  if (target === token) for (const other of tokens.target) if (other === token) members++;
  const [left, top, right, bottom] = box;
  const northWest = geometry.lonlat(left, top);
  return {
    token,
    view_name: tokens.views[place.view],
    row: place.viewRow,
    col: place.viewCol,
    fate: FATES[tokens.fate[token]],
    target: aim && { view_name: tokens.views[aim.view], row: aim.viewRow, col: aim.viewCol },
    members,
    score: tokens.scores ? tokens.scores[token] : null,
    attention: attention ? attention[token] : undefined,
    box,
    lonlat: northWest && [northWest, geometry.lonlat(right, bottom)],
  };
}

/** Facts of the token of a run under a pixel of the image, from the server; null where there is none. */
export async function remoteFacts(run, [x, y], level, depth) {
  const query = { bbox: [x, y, x, y].join(","), limit: 1, level, of: depth.of };
  if (depth.layer !== null) query.layer = depth.layer;
  const answer = await getJson(runUrl(run, "tokens", query));
  if (!answer.tokens.length) return null;
  const facts = answer.tokens[0];
  // JSON has no NaN: null is "not there", absent is "not recorded".
  if (facts.score === null && answer.has_scores) facts.score = NaN;
  if (facts.attention === null) facts.attention = NaN;
  return facts;
}

const where = (place, several) =>
  `${several ? `${place.view_name}, row` : "Row"} ${place.row + 1}, column ${place.col + 1}`;

const span = (low, high) => `${brief4(low)} to ${brief4(high)}`;
const brief4 = (value) => String(Number(value.toFixed(Math.abs(value) < 1000 ? 1 : 0)));

/** Latitude and longitude in degrees, the longitude from -180 to 180. */
function degrees([longitude, latitude]) {
  const turned = ((((longitude + 180) % 360) + 360) % 360) - 180;
  return `${latitude.toFixed(6)}, ${turned.toFixed(6)}`.replaceAll("-", MINUS);
}


function overlapsEvidence(box, evidence) {
  return evidence.some(
    ([left, top, right, bottom]) => left < box[2] && right > box[0] && top < box[3] && bottom > box[1],
  );
}

/** Title and lines that describe a token. */
export function describe(facts, { several, depth, evidence, reference }) {
  const lines = [];
  if (facts.target) {
    const aim = where(facts.target, several && facts.target.view_name !== facts.view_name);
    lines.push(`became one with ${aim[0].toLowerCase()}${aim.slice(1)}`);
  }
  if (facts.members > 1) lines.push(`stands for ${facts.members} tokens`);
  if (facts.attention !== undefined && depth.layer !== null) {
    const from = depth.of === "question" ? " from the question" : "";
    const value = Number.isNaN(facts.attention) ? "none, not there" : percent(facts.attention);
    lines.push(`attention${from}, layer ${depth.layer + 1}: ${value}`);
    if (reference !== undefined && reference !== null) {
      const change = difference([facts.attention], [reference], 0);
      lines.push(`against A: ${signed(change, hundredths(change))} points`);
    }
  }
  if (facts.score !== null && facts.score !== undefined) lines.push(`score: ${brief(facts.score)}`);
  if (overlapsEvidence(facts.box, evidence)) lines.push("touches the evidence");
  const [left, top, right, bottom] = facts.box;
  lines.push(`x ${span(left, right)}, y ${span(top, bottom)} px`);
  if (facts.lonlat) lines.push(`${degrees(facts.lonlat[0])} to ${degrees(facts.lonlat[1])}`);
  return { title: `${where(facts, several)}: ${facts.fate}`, lines };
}

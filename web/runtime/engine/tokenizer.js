/**
 * Text to token ids and back. Text comes from outside, so no text gives a special token: it could end its turn and speak
 * in another role.
 */

import { BundleError, UnknownWords } from "../errors.js";

/** A token that means something beside what it spells. */
const MARK = /^<\|.+\|>$/s;

const NAMES = {
  start: "<|startoftext|>",
  open: "<|im_start|>",
  close: "<|im_end|>",
  audio: "<|audio_start|>",
  textEnd: "<|text_end|>",
};

export class Tokenizer {
  /**
   * @param {any} Library the class Tokenizer of @huggingface/tokenizers
   * @param {string} json the text of tokenizer.json
   */
  constructor(Library, json) {
    const content = JSON.parse(json);
    this.whole = new Library(content, {});
    // This one matches no special tokens: what is written like one is taken for text.
    this.plain = new Library({ ...content, added_tokens: [] }, {});
    /** @type {Record<keyof typeof NAMES, number>} */
    this.ids = /** @type {any} */ ({});
    for (const [role, token] of Object.entries(NAMES)) {
      const id = this.whole.token_to_id(token);
      if (id === undefined) throw new BundleError(`The bundle's tokenizer has no token ${token}. Use the Python runtime for it.`);
      this.ids[/** @type {keyof typeof NAMES} */ (role)] = id;
    }
    this.unknown = content.model.unk_token ? this.whole.token_to_id(content.model.unk_token) : undefined;
    this.marks = new Set([...this.whole.get_added_tokens_decoder().keys()]);
  }

  /**
   * Ids of `text`, none of them special.
   *
   * @param {string} text
   * @returns {number[]}
   */
  encode(text) {
    const { ids, tokens } = this.plain.encode(text, { add_special_tokens: false });
    const closed = this.unknown !== undefined;
    const isMark = (/** @type {number} */ place) => this.marks.has(ids[place]) || MARK.test(tokens[place]);
    // The library has no id for a word that is not in a list of words.
    const isBad = (/** @type {string} */ _, /** @type {number} */ i) => ids[i] === undefined || (closed && isMark(i));
    const bad = tokens.filter(isBad);
    if (bad.length) {
      throw new UnknownWords(`This model does not know: ${[...new Set(bad)].join(", ")}. Use words that it knows.`);
    }
    return ids.flatMap((/** @type {number} */ id, /** @type {number} */ i) => {
      if (!isMark(i)) return [id];
      return [...tokens[i]].flatMap((character) => this.plain.encode(character, { add_special_tokens: false }).ids);
    });
  }

  /**
   * The text of `ids`, special tokens left out.
   *
   * @param {number[]} ids
   * @returns {string}
   */
  decode(ids) {
    const text = ids.filter((id) => !this.marks.has(id));
    return text.length ? this.whole.decode(text, { skip_special_tokens: true }) : "";
  }
}

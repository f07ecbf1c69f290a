/** The site has the package's own file here. */
export * from "@huggingface/tokenizers";

// In place of what the packages name and a page never reaches: node's own modules, and an XML parser.
module.exports = {};

package chain

import "encoding/binary"

// Extension is the type of a Token-2022 extension, as the program numbers them.
type Extension uint16

// The extensions that only describe a token.
const (
	ExtensionMetadataPointer    Extension = 18
	ExtensionTokenMetadata      Extension = 19
	ExtensionGroupPointer       Extension = 20
	ExtensionTokenGroup         Extension = 21
	ExtensionGroupMemberPointer Extension = 22
	ExtensionTokenGroupMember   Extension = 23
)

// Where an account of Token-2022 has its extensions, each a type and a length of two bytes, and its content.
const (
	extensionsAt   = 166
	extensionHead  = 4
	extensionNone  = Extension(0)
	extensionSizes = 2
)

// extensionsOf lists a mint's extensions. One that is cut short is listed, too: whoever has a list of harmless ones must not miss it.
func extensionsOf(mint []byte) (list []Extension) {
	for rest := mint[min(len(mint), extensionsAt):]; len(rest) >= extensionHead; {
		kind, length := Extension(binary.LittleEndian.Uint16(rest)), int(binary.LittleEndian.Uint16(rest[extensionSizes:]))
		if kind == extensionNone {
			break
		}
		list = append(list, kind)
		rest = rest[min(len(rest), extensionHead+length):]
	}
	return list
}
